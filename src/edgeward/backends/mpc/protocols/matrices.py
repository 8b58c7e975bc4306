"""Products of stacks of secret matrices, as attention needs them.

Source: Beaver, CRYPTO 1991, matrix by matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class MatrixProducts(Demand):
    """Material for `count` products of an m x k and a k x n matrix, all secret."""

    count: int
    m: int
    k: int
    n: int

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        shapes = {
            "a": (self.count, self.m, self.k),
            "b": (self.count, self.k, self.n),
            "c": (self.count, self.m, self.n),
        }
        return tuple(Field(name, shape, ring.bits, name == "c") for name, shape in shapes.items())

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": stacked_product(ring, clear["a"], clear["b"])}

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * self.k * (self.m + self.n) * ring.element_bytes, 1)


def stacked_product(ring: Ring, a: Elements, b: Elements) -> Elements:
    """Return a b for stacks [count, m, k] and [count, k, n]."""
    return matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), ring)


def multiply_matrices(party: Party, x: Shared, y: Shared, material: Material, label: str = "matmul") -> Shared:
    """Return shares of x y for stacks [count, m, k] and [count, k, n] of secret matrices; fraction bits add up.

    Guarantee: see `Party`; both are opened under masks used once. Cost: count k (m + n) elements, 1 round; two ring
    products per party and matrix.
    """
    demand, t = material.take(MatrixProducts)
    wanted = ((demand.count, demand.m, demand.k), (demand.count, demand.k, demand.n))
    if (x.shape, y.shape) != wanted:
        raise ConfigError("material for other shapes", expected=str(wanted), came=f"{x.shape} and {y.shape}")
    ring = party.ring
    masked = [ring.wrap(x.elements - t["a"]), ring.wrap(y.elements - t["b"])]
    e, f = party.open_all(masked, [f"{label}/left", f"{label}/right"])
    held = ring.wrap(t["b"] + f) if party.first else t["b"]
    share = t["c"] + stacked_product(ring, e, held) + stacked_product(ring, t["a"], f)
    return Shared(ring.wrap(share), x.fraction + y.fraction)
