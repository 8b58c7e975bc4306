"""A protocol on a large tensor as the same protocol on slices of it, taking turns on the channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgeward.backends.mpc.interleaving import Duplex, interleave
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Link, Party
from edgeward.backends.mpc.planes import plane_bytes
from edgeward.backends.mpc.sharing import Shared

LEAST = 1 << 13
"""Elements below which a slice costs more turns than it hides."""

Elementwise = Callable[[Party, Shared, Material, str], Shared]


def slices_of(party: Party, count: int) -> int:
    """Return into how many slices a tensor of `count` elements is cut: 1 where that would gain nothing."""
    if party.slices == 1 or not isinstance(party.link, Duplex):
        return 1
    return max(1, min(party.slices, count // LEAST))


def in_slices(party: Party, z: Shared, material: Material, protocol: Elementwise, label: str) -> Shared:
    """Return what `protocol` gives for every element of `z`, computed slice by slice; uses `material` up.

    The demand must have a `count`, and its fields be elements or planes of that many. Slices begin at whole bytes of a
    plane, so that the bytes sent are those of the whole. Guarantee: as the protocol's; every mask is used once. Cost:
    the protocol's; the rounds of the slices coincide.
    """
    demand: Any
    demand, arrays = material.take(type(material.demand), z.elements.size)
    count, flat, slices = demand.count, z.elements.reshape(-1), slices_of(party, demand.count)
    size = -(-count // (8 * slices)) * 8
    cuts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    fields = demand.fields(party.ring)

    def piece(cut: slice) -> dict[str, np.ndarray]:
        planes = slice(cut.start // 8, plane_bytes(cut.stop))
        return {f.name: arrays[f.name][..., cut if f.bits else planes] for f in fields}

    pieces = material.divided([(replace(demand, count=cut.stop - cut.start), piece(cut)) for cut in cuts])

    def on_slice(cut: slice, own: Material) -> Callable[[Link], Shared]:
        return lambda link: protocol(replace(party, link=link, slices=1), Shared(flat[cut], z.fraction), own, label)

    if not isinstance(party.link, Duplex):
        raise TypeError("`slices_of` says 1 for such a link")
    results = interleave(party.link, [on_slice(*pair) for pair in zip(cuts, pieces, strict=True)])
    return Shared(np.concatenate([part.elements for part in results]).reshape(z.shape), results[0].fraction)
