"""The leading bit of a positive shared value, and the value shifted until that bit stands at one place.

All powers of two are compared with one opened value in one batch; the bits b_j = [z >= 2^j], opened under one-time
bits, then give z 2^(last - e) and any public numbers w_e as sums that are linear in shares dealt before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.planes import plane_bytes, unpack
from edgeward.backends.mpc.protocols.activation import chosen, selected
from edgeward.backends.mpc.protocols.comparison_batch import at_least, batch_fields, complete_batch
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Normalization(Demand):
    """Material for `count` values in [2^first, 2^(last + 1)); `style` is the layout but for its width."""

    count: int
    first: int
    last: int
    style: Layout = STANDARD

    @property
    def layout(self) -> Layout:
        """Return how the comparisons are made."""
        return replace(self.style, width=self.last + 2)

    @property
    def bounds(self) -> int:
        """Return how many powers of two are compared."""
        return self.last - self.first

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        if not 0 <= self.first < self.last <= ring.bits - 2:
            raise ConfigError("no such range", expected=f"0 <= first < last <= {ring.bits - 2}", came=f"{self}")
        row, fields = plane_bytes(self.count), [Field("mask", (self.count,), ring.bits, False)]
        fields += batch_fields(self.layout, self.count, self.bounds)
        fields.append(Field("choice", (self.bounds, row), 0, False))
        return (*fields, *(Field(name, (self.bounds, self.count), ring.bits, True) for name in ("bit", "bit_mask")))

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        mask = clear["mask"]
        made = complete_batch(self.layout, mask, self.bounds, clear)
        bits = np.stack([unpack(plane, self.count) for plane in clear["choice"]]).astype(ring.dtype)
        return made | {"bit": bits, "bit_mask": bits * mask}

    def cost(self, ring: Ring) -> Cost:
        opened = (self.layout.opened + 1) * self.bounds * plane_bytes(self.count)
        return Cost(self.count * ring.element_bytes + opened, self.layout.rounds + 2)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Normalized:
    """Shares of z 2^(last - e), which lies in [2^last, 2^(last + 1)), and of [z >= 2^j] for j = first + 1 .. last."""

    value: Shared
    above: Elements

    def weighted(self, party: Party, weights: Sequence[int], fraction: int) -> Shared:
        """Return shares of weights[e - first], integers with `fraction` fraction bits; local."""
        ring = party.ring
        steps = [ring.constant(after - before) for before, after in pairwise(weights)]
        share = sum((row * step for row, step in zip(self.above, steps, strict=True)), np.zeros_like(self.above[0]))
        share = share + ring.constant(weights[0]) if party.first else share
        return Shared(ring.wrap(share).reshape(self.value.shape), fraction)


def normalize(party: Party, z: Shared, material: Material, label: str = "normalize") -> Normalized:
    """Return the value with its leading bit at place `last`, and the bits that say how far it moved.

    A value outside [2^first, 2^(last + 1)) gives a wrong result without notice. Guarantee: see `Party`; what is opened
    is masked by values used once. Cost: `Normalization.cost`, layout.rounds + 2 rounds.
    """
    demand, arrays = material.take(Normalization, z.elements.size)
    ring = party.ring
    public = party.open_elements(ring.wrap(z.elements.reshape(-1) + arrays["mask"]), f"{label}/open")
    bounds = [1 << (demand.first + 1 + j) for j in range(demand.bounds)]
    bits = at_least(party, demand.layout, public, bounds, arrays, label)
    opened = party.open_planes(bits ^ arrays["choice"], f"{label}/choice")
    c = np.stack([unpack(row, demand.count) for row in opened]).astype(ring.dtype)
    above = np.stack([chosen(party, c[j], arrays["bit"][j]) for j in range(demand.bounds)])
    # sum over e of [e] z 2^(last - e), by parts.
    total = z.elements.reshape(-1) * ring.constant(1 << demand.bounds)
    for j in range(demand.bounds):
        part = selected(party, public, c[j], arrays["bit"][j], arrays["mask"], arrays["bit_mask"][j])
        total = total - part * ring.constant(1 << (demand.bounds - 1 - j))
    return Normalized(Shared(ring.wrap(total).reshape(z.shape), demand.last), above)
