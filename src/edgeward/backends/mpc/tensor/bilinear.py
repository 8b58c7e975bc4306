"""The value of a map that is linear in two secret values, each used once: a convolution with fresh weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared


@final
@dataclass(frozen=True)
class Bilinear(Demand):
    """Material for L(x; w), with x of shape `x` and w of shape `w`."""

    map: LinearMap
    x: Shape
    w: Shape

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        shapes = {"a": self.x, "b": self.w, "c": self.map.output_shape(self.x, self.w)}
        return tuple(Field(name, shape, ring.bits, name == "c") for name, shape in shapes.items())

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": self.map.apply(ring, clear["a"], clear["b"])}

    def cost(self, ring: Ring) -> Cost:
        return Cost((math.prod(self.x) + math.prod(self.w)) * ring.element_bytes, 1)


def bilinear(party: Party, x: Shared, w: Shared, material: Material, label: str = "bilinear") -> Shared:
    """Return shares of L(x; w) for the map of the material; fraction bits add up.

    Guarantee: see `Party`; both are opened under masks used once. Cost: one element per element of both, 1 round; two
    ring products per party. Source: Beaver, CRYPTO 1991.
    """
    demand, t = material.take(Bilinear)
    ring = party.ring
    e, f = party.open_all(
        [ring.wrap(x.elements - t["a"]), ring.wrap(w.elements - t["b"])], [f"{label}/x", f"{label}/w"]
    )
    held = ring.wrap(t["b"] + f) if party.first else t["b"]
    share = t["c"] + demand.map.apply(ring, e, held) + demand.map.apply(ring, t["a"], f)
    return Shared(ring.wrap(share), x.fraction + w.fraction)
