"""Activations with tails: a curve between two bounds, a constant below, a constant or the value itself above.

One opening serves the table (see `lookup`) and both comparisons; the table's result is opened under a mask of its own
together with the choice bits, which truncates it and multiplies it by the choice at once, as in `activation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.planes import plane_bytes, unpack
from edgeward.backends.mpc.protocols.activation import chosen, rectified, selected
from edgeward.backends.mpc.protocols.comparison_batch import at_least, batch_fields, complete_batch
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.curve import Curve
from edgeward.backends.mpc.protocols.lookup import deal_table, look_up, table_field
from edgeward.backends.mpc.protocols.truncation import complete_mask, mask_fields, open_masked
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Tailed:
    """`curve` for low <= t < high (integers), `below` left of it, and right of it `above` or, if that is None, t.

    All constants are integers with the curve's fraction bits; the curve holds f - below.
    """

    curve: Curve
    low: int
    high: int
    below: int = 0
    above: int | None = None


@final
@dataclass(frozen=True)
class Curved(Demand):
    """Material for an activation with tails of `count` values truncated by `shift` bits first."""

    count: int
    shift: int
    tailed: Tailed
    layout: Layout = STANDARD

    @property
    def drop(self) -> int:
        """Return how many fraction bits the curve's result has too many."""
        return self.tailed.curve.scale - self.tailed.curve.fraction

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        curve, count, row = self.tailed.curve, self.count, plane_bytes(self.count)
        self._check(ring)
        lifted = max(2, ring.bits - curve.bits + self.drop)
        first, *dependent = mask_fields(ring, count, self.shift)
        fields = [Field("mask", (2, *first.shape), first.bits, False), table_field(curve, count)]
        fields += batch_fields(self.layout, count, 2)
        fields += [
            Field("choice", (2, row), 0, False),
            Field("bit", (2, count), ring.bits, True),
            Field("value_high", (2, count), ring.bits, True),
            Field("value_top", (2, count), lifted, True),
        ]
        if self.tailed.above is None:
            fields += [*dependent, Field("bit_high", (count,), ring.bits, True)]
            if self.shift:
                fields.append(Field("bit_top", (count,), max(self.shift, 2), True))
        return tuple(fields)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        curve, (mask, own) = self.tailed.curve, clear["mask"]
        high = mask >> mask.dtype.type(self.shift)
        made = complete_mask(ring, mask, self.shift)
        made |= complete_batch(self.layout, high, 2, clear)
        bits = np.stack([unpack(row, self.count) for row in clear["choice"]]).astype(ring.dtype)
        small = Ring(curve.bits, 0)
        own = small.wrap(own)
        value_high = (own >> own.dtype.type(self.drop)).astype(ring.dtype)
        lifted = Ring(max(2, ring.bits - curve.bits + self.drop), 0)
        value_top = (own >> own.dtype.type(curve.bits - 1)).astype(lifted.dtype)
        made |= {"table": deal_table(curve, high), "bit": bits}
        made["value_high"] = np.stack([value_high, bits[0] * value_high])
        made["value_top"] = np.stack([value_top, bits[0].astype(lifted.dtype) * value_top])
        if self.tailed.above is None:
            made["bit_high"] = bits[1] * (made["high"] if self.shift else mask)
            if self.shift:
                made["bit_top"] = bits[1].astype(made["top"].dtype) * made["top"]
        return made

    def cost(self, ring: Ring) -> Cost:
        row = plane_bytes(self.count)
        opened = self.count * (ring.element_bytes + Ring(self.tailed.curve.bits, 0).element_bytes)
        return Cost(opened + 2 * (self.layout.opened + 1) * row, self.layout.rounds + 2)

    def _check(self, ring: Ring) -> None:
        curve, room = self.tailed.curve, ring.bits - self.shift
        if max(curve.domain_bits, self.layout.width) > room or curve.bits > ring.bits or self.drop < 0:
            raise ConfigError("no such activation", expected=f"a domain and width of {room} bits", came=f"{self}")


def curved(party: Party, z: Shared, material: Material, label: str = "curved") -> Shared:
    """Return shares of the activation of t = z truncated (see `truncate`), with t's fraction bits.

    Needs -2^(width-1) <= t - bound < 2^(width-1) for both bounds, and |z| < 2^(bits-2) where there is a shift. Error:
    that of `lookup` and one unit. Guarantee: see `Party`; what is opened is masked by values used once. Cost:
    `Curved.cost`: 8 + 8 + 4 bytes per value at 64 bits and 4 rounds with the standard layout.
    """
    demand, arrays = material.take(Curved, z.elements.size)
    ring, tailed, count = party.ring, demand.tailed, demand.count
    own = dict(arrays) | {"mask": arrays["mask"][0]}
    public, opened_top = open_masked(party, z, demand.shift, own, label)
    value = look_up(tailed.curve, public, arrays["table"])
    over, above = at_least(party, demand.layout, public, (tailed.low, tailed.high), arrays, label)
    planes = np.stack([over ^ above, above]) ^ arrays["choice"]
    small = Ring(tailed.curve.bits, 0)
    masked = small.wrap(value + arrays["mask"][1].astype(small.dtype))
    if party.first:
        masked = small.wrap(masked + small.constant(1 << (small.bits - 2)))
    opened, m = party.open_mixed(planes, masked, small, f"{label}/choice")
    c = np.stack([unpack(row, count) for row in opened]).astype(ring.dtype)
    share = _chosen_value(party, demand, m, c[0], arrays)
    share = share + _tail(party, demand, public, opened_top, c[1], own)
    if party.first:
        share = share + ring.constant(tailed.below)
    return Shared(ring.wrap(share).reshape(z.shape), tailed.curve.fraction)


def _chosen_value(party: Party, demand: Curved, m: Elements, c: Elements, arrays: Mapping[str, np.ndarray]) -> Elements:
    """Return the share of (inside) x (the curve's value without its last `drop` bits)."""
    ring, bits, drop = party.ring, demand.tailed.curve.bits, demand.drop
    public = (m >> m.dtype.type(drop)).astype(ring.dtype) - ring.constant(1 << (bits - 2 - drop))
    wrapped = (m >> m.dtype.type(bits - 1)).astype(ring.dtype) ^ ring.constant(1)
    unit = ring.constant(1 << (bits - drop)) if bits - drop < ring.bits else ring.constant(0)
    masks = arrays["value_high"] - wrapped * arrays["value_top"].astype(ring.dtype) * unit
    return selected(party, public, c, arrays["bit"][0], masks[0], masks[1])


def _tail(
    party: Party, demand: Curved, public: Elements, opened_top: Elements, c: Elements, arrays: Mapping[str, np.ndarray]
) -> Elements:
    """Return the share of (above) x (what the activation is there, less `below`)."""
    ring, tailed = party.ring, demand.tailed
    if tailed.above is not None:
        return ring.wrap(chosen(party, c, arrays["bit"][1]) * ring.constant(tailed.above - tailed.below))
    own = {**arrays, "bit": arrays["bit"][1]}
    return rectified(party, demand.shift, public - ring.constant(tailed.below), opened_top, c, own)
