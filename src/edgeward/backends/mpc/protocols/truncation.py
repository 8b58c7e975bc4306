"""Exact truncation: divide a shared value by a power of two, one opening, never more than one unit above the floor.

Derivation: with z' = z + 2^(l-2) in [0, 2^(l-1)) and m = z' + r mod 2^l public, the sum wrapped
if and only if r has its top bit set and m has not; hence floor(m / 2^f) - floor(r / 2^f) + wrap 2^(l-f).
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
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError
from edgeward.native.shares import truncate_opened


@final
@dataclass(frozen=True)
class Truncation(Demand):
    """Material to truncate `count` values by `shift` bits."""

    count: int
    shift: int

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        return mask_fields(ring, self.count, self.shift)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return complete_mask(ring, clear["mask"], self.shift)

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * ring.element_bytes, 1)


def mask_fields(ring: Ring, count: int, shift: int) -> tuple[Field, ...]:
    """Return the mask r, and its high part and top bit where there is a shift.

    Only the low `shift` bits of a share of the top bit matter (it is multiplied by 2^(bits-shift)).
    """
    if not 0 <= shift <= ring.bits - 2:
        raise ConfigError("no such shift", expected=f"0 to {ring.bits - 2}", came=str(shift))
    fields = [Field("mask", (count,), ring.bits, False)]
    if shift:
        fields += [Field("high", (count,), ring.bits, True), Field("top", (count,), max(shift, 2), True)]
    return tuple(fields)


def complete_mask(ring: Ring, mask: Elements, shift: int) -> dict[str, np.ndarray]:
    """Return the dependent part of `mask_fields` (dealer only)."""
    if not shift:
        return {}
    small = Ring(max(shift, 2), 0)
    return {"high": mask >> mask.dtype.type(shift), "top": small.wrap(mask >> mask.dtype.type(ring.bits - 1))}


def open_masked(
    party: Party, z: Shared, shift: int, material: Mapping[str, np.ndarray], label: str
) -> tuple[Elements, Elements]:
    """Open z + 2^(l-2) + r; return the public M' and m's top bit as 0/1. One round, one element each."""
    masked = _masked(party, z.elements.reshape(-1), shift, material["mask"])
    return _unmasked(party.ring, party.open_elements(masked, f"{label}/open"), shift)


def _unmasked(ring: Ring, m: Elements, shift: int) -> tuple[Elements, Elements]:
    """Return M' = floor(m / 2^f) without the offset, and m's top bit as 0/1."""
    public = m >> m.dtype.type(shift)
    public -= ring.constant(_offset(ring, shift) >> shift)
    return ring.wrap(public), m >> m.dtype.type(ring.bits - 1)


def _masked(party: Party, z: Elements, shift: int, mask: Elements) -> Elements:
    share = z + mask
    if party.first:
        share += party.ring.constant(_offset(party.ring, shift))
    return party.ring.wrap(share)


def _offset(ring: Ring, shift: int) -> int:
    return 1 << (ring.bits - 2) if shift else 0


def lift_top(ring: Ring, top: np.ndarray, opened_top: Elements, shift: int) -> Elements:
    """Return the share of 2^(l-f) [the sum wrapped], from shares of a bit modulo 2^f."""
    # Nothing where the bit is 1, `top` where it is 0: masks and shifts, several times faster than products.
    wrap = top.astype(ring.dtype)
    wrap &= opened_top - ring.dtype.type(1)
    wrap <<= ring.dtype.type(ring.bits - shift)
    return ring.wrap(wrap)


def truncate(party: Party, z: Shared, material: Material, label: str = "truncate") -> Shared:
    """Return shares of floor(z / 2^shift) or of one unit more.

    Needs |z| < 2^(bits-2). Which of the two it is depends on the low bits of z and of the mask: whoever learns the
    exact result and the opened value learns one bit about the low bits of z that rounding would have hidden.
    Guarantee: see `Party`; the one opened value is masked by a uniform element used once. Cost: `Truncation.cost`.
    """
    demand, arrays = material.take(Truncation, z.elements.size)
    masked = _masked(party, z.elements.reshape(-1), demand.shift, arrays["mask"])
    share = open_truncated(party, masked, demand.shift, arrays, label)
    return Shared(share.reshape(z.shape), z.fraction - demand.shift)


def mask_onto(party: Party, share: Elements, material: Material) -> tuple[int, dict[str, np.ndarray]]:
    """Add the mask of a truncation to `share`, in place, before the rest of the value is known; uses `material` up.

    Returns the shift and the arrays that `open_truncated` needs then.
    """
    demand, arrays = material.take(Truncation, share.size)
    share += arrays["mask"].reshape(share.shape)
    if party.first:
        share += party.ring.constant(_offset(party.ring, demand.shift))
    return demand.shift, arrays


def open_truncated(
    party: Party, masked: Elements, shift: int, arrays: Mapping[str, np.ndarray], label: str
) -> Elements:
    """Open z + 2^(l-2) + r, whose share is `masked`, and return the share of z / 2^shift. See `truncate`."""
    ring = party.ring
    ((mine, theirs),) = party.swap_all([masked], [f"{label}/open"])
    if shift:
        high, top = arrays["high"], arrays["top"]
        return truncate_opened(mine, theirs, high, top, shift, ring.bits, party.first)
    return ring.wrap(mine + theirs - arrays["mask"] if party.first else -arrays["mask"])
