"""One masked value compared with several public bounds at once: the mask's tables are dealt once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeward.backends.mpc.offline.demand import Field, Values
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.planes import Planes, plane_bytes
from edgeward.backends.mpc.protocols.comparison import comparison_fields, complete_comparison, nonnegative
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.ring import Elements

# Look-ups in shared tables are linear, hence free to repeat; whatever is opened has masks of its own.
_ONCE = ("sign", "tables")


def batch_fields(layout: Layout, count: int, bounds: int) -> tuple[Field, ...]:
    """Return the material for comparing `count` values with `bounds` bounds each, under masks dealt elsewhere."""
    row = plane_bytes(count)
    fields = comparison_fields(layout, 8 * row * bounds)
    return tuple(replace(field, shape=(field.shape[0], row)) if field.name in _ONCE else field for field in fields)


def complete_batch(layout: Layout, high: Elements, bounds: int, clear: Values) -> dict[str, np.ndarray]:
    """Return the dependent material for the masks `high` (dealer only)."""
    row = plane_bytes(len(high))
    made = complete_comparison(layout, np.tile(_padded(high), bounds), clear)
    return {name: value[:, :row] if name in _ONCE else value for name, value in made.items()}


def at_least(
    party: Party,
    layout: Layout,
    public: Elements,
    bounds: Sequence[int],
    material: Mapping[str, np.ndarray],
    label: str,
) -> Planes:
    """Return this party's share of [t >= bound] for t = public - mask: one plane per bound.

    Exact when -2^(width-1) <= t - bound < 2^(width-1). Cost: per value and bound `layout.opened` bits, `layout.rounds`
    rounds for all. Guarantee: see `Party`; every opened bit is masked by a bit used once.
    """
    ring, row = party.ring, plane_bytes(len(public))
    moved = np.concatenate([_padded(ring.wrap(public - ring.constant(bound))) for bound in bounds])
    repeated = {name: np.tile(material[name], (1, len(bounds))) for name in _ONCE if name in material}
    bits = nonnegative(party, layout, moved, {**material, **repeated}, label)[0]
    return np.ascontiguousarray(bits.reshape(len(bounds), row))


def _padded(x: Elements) -> Elements:
    """Return values with zeros up to whole bytes of bits."""
    return np.concatenate([x, np.zeros(-len(x) % 8, x.dtype)])
