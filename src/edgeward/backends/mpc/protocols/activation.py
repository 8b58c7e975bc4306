"""Truncation, comparison and selection fused: sign and ReLU of a shared value, exact in the ring.

Derivation: t = M' - R' with M' public and R' = floor(r / 2^f) - wrap 2^(l-f). The comparison gives b = [t >= 0] as
shared bits; c = b xor beta is opened under a one-time bit beta; then b = c + (1 - 2c) beta and b R' = c R' + (1 - 2c)
beta R' are linear in shares dealt before, and relu(t) = M' b - b R'. Tests try every input and mask of small rings.
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
from edgeward.backends.mpc.protocols.comparison import comparison_fields, complete_comparison, nonnegative
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.slicing import in_slices, slices_of
from edgeward.backends.mpc.protocols.truncation import complete_mask, lift_top, mask_fields, open_masked
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

# The last step runs on blocks of this many elements, so that its intermediate values stay in the processor's cache.
_BLOCK = 1 << 14
_SELECTED = ("mask", "high", "top", "bit", "bit_high", "bit_top")


@final
@dataclass(frozen=True)
class Sign(Demand):
    """Material for [t >= 0] of `count` values, t = the value truncated by `shift` bits."""

    count: int
    shift: int = 0
    layout: Layout = STANDARD

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        check_width(ring, self.shift, self.layout)
        chosen = (Field("choice", (1, plane_bytes(self.count)), 0, False), Field("bit", (self.count,), ring.bits, True))
        return (*mask_fields(ring, self.count, self.shift), *comparison_fields(self.layout, self.count), *chosen)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        high = clear["mask"] >> clear["mask"].dtype.type(self.shift)
        made = complete_mask(ring, clear["mask"], self.shift) | complete_comparison(self.layout, high, clear)
        return made | {"bit": unpack(clear["choice"][0], self.count).astype(ring.dtype)}

    def cost(self, ring: Ring) -> Cost:
        row = plane_bytes(self.count)
        return Cost(self.count * ring.element_bytes + (self.layout.opened + 1) * row, self.layout.rounds + 2)


@final
@dataclass(frozen=True)
class Relu(Demand):
    """Material for max(t, 0) of `count` values, t = the value truncated by `shift` bits."""

    count: int
    shift: int = 0
    layout: Layout = STANDARD

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        fields = (
            *Sign(self.count, self.shift, self.layout).fields(ring),
            Field("bit_high", (self.count,), ring.bits, True),
        )
        return (*fields, Field("bit_top", (self.count,), max(self.shift, 2), True)) if self.shift else fields

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        made = Sign(self.count, self.shift, self.layout).complete(ring, clear, kept)
        if not self.shift:
            return made | {"bit_high": made["bit"] * clear["mask"]}
        return made | {
            "bit_high": made["bit"] * made["high"],
            "bit_top": made["bit"].astype(made["top"].dtype) * made["top"],
        }

    def cost(self, ring: Ring) -> Cost:
        return Sign(self.count, self.shift, self.layout).cost(ring)


def sign(party: Party, z: Shared, material: Material, label: str = "sign") -> Shared:
    """Return shares of 1 where t >= 0 and of 0 elsewhere (no fraction bits).

    Needs -2^(width-1) <= t < 2^(width-1), and |z| < 2^(bits-2) where there is a shift. Guarantee: see `Party`. Cost:
    `Sign.cost`.
    """
    demand, arrays = material.take(Sign, z.elements.size)
    public, _ = open_masked(party, z, demand.shift, arrays, label)
    c = _open_choice(party, demand.layout, public, arrays, z.elements.size, label)
    return Shared(chosen(party, c.astype(party.ring.dtype), arrays["bit"]).reshape(z.shape), 0)


def relu(party: Party, z: Shared, material: Material, label: str = "relu") -> Shared:
    """Return shares of max(t, 0), t = floor(z / 2^shift) or one unit more (see `truncate`).

    Needs -2^(width-1) <= t < 2^(width-1), and |z| < 2^(bits-2) where there is a shift; a value outside gives a wrong
    result without notice. Guarantee: see `Party`; what is opened is masked by values used once. Cost: `Relu.cost`:
    8 + (layout.opened + 1) / 8 bytes per element at 64 bits, layout.rounds + 2 rounds.
    """
    if isinstance(material.demand, Relu) and not material.demand.layout.keys and slices_of(party, z.elements.size) > 1:
        return in_slices(party, z, material, relu, label)
    demand, arrays = material.take(Relu, z.elements.size)
    ring, shift = party.ring, demand.shift
    public, opened_top = open_masked(party, z, shift, arrays, label)
    c = _open_choice(party, demand.layout, public, arrays, z.elements.size, label)
    share = np.empty(public.shape, ring.dtype)
    for start in range(0, len(share), _BLOCK):
        cut = slice(start, start + _BLOCK)
        block = {name: arrays[name][cut] for name in _SELECTED if name in arrays}
        share[cut] = rectified(party, shift, public[cut], opened_top[cut], c[cut], block)
    return Shared(share.reshape(z.shape), z.fraction - shift)


def rectified(
    party: Party, shift: int, public: Elements, opened_top: Elements, c: Elements, arrays: Mapping[str, np.ndarray]
) -> Elements:
    """Return the share of M' b - b R' for b = c xor beta; `public` is M', or that less a public number."""
    ring, high, bit_high = party.ring, arrays["high" if shift else "mask"], arrays["bit_high"]
    if shift:
        high = high - lift_top(ring, arrays["top"], opened_top, shift)
        bit_high = bit_high - lift_top(ring, arrays["bit_top"], opened_top, shift)
    return ring.wrap(selected(party, public, c.astype(ring.dtype), arrays["bit"], high, bit_high))


def _open_choice(
    party: Party, layout: Layout, public: Elements, arrays: Mapping[str, np.ndarray], count: int, label: str
) -> Elements:
    """Open [t >= 0] xor the one-time bit; return it as bytes 0 and 1."""
    positive = nonnegative(party, layout, public, arrays, label)
    opened = party.open_planes(positive ^ arrays["choice"], f"{label}/choice")
    return unpack(opened[0], count)


def chosen(party: Party, c: Elements, bit: Elements) -> Elements:
    """Return the share of b = c xor bit = c + (1 - 2c) bit, from the public c and shares of the bit that masked b."""
    share = (party.ring.constant(1) - c - c) * bit
    return party.ring.wrap(share + c if party.first else share)


def selected(
    party: Party, public: Elements, c: Elements, bit: Elements, mask: Elements, bit_mask: Elements
) -> Elements:
    """Return the share of b (public - mask), from shares of the mask and of the mask times the bit that masked b."""
    turned = party.ring.constant(1) - c - c
    return np.asarray(public * chosen(party, c, bit) - (c * mask + turned * bit_mask))


def check_width(ring: Ring, shift: int, layout: Layout) -> None:
    """Refuse a comparison of more bits than a truncated value has."""
    if layout.width > ring.bits - shift:
        raise ConfigError(
            "the comparison is wider than what truncation leaves",
            expected=f"width <= {ring.bits - shift}",
            came=str(layout.width),
            fix="compare fewer bits, or take a wider ring",
        )
