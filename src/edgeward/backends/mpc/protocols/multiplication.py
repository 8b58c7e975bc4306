"""Products of two shared values, element by element, and squares.

Source: Beaver, CRYPTO 1991: z = c + (x - a) b + a (y - b) + (x - a)(y - b), with a, b uniform and c = a b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Product(Demand):
    """Material for `count` elementwise products."""

    count: int

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        return tuple(Field(name, (self.count,), ring.bits, name == "c") for name in ("a", "b", "c"))

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": clear["a"] * clear["b"]}

    def cost(self, ring: Ring) -> Cost:
        return Cost(2 * self.count * ring.element_bytes, 1)


@final
@dataclass(frozen=True)
class SpreadProduct(Demand):
    """Material for the product of a value of `shape` with one that broadcasts over it (a gain per channel)."""

    shape: tuple[int, ...]
    factor: tuple[int, ...]

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        shapes = {"a": self.shape, "b": self.factor, "c": self.shape}
        return tuple(Field(name, shape, ring.bits, name == "c") for name, shape in shapes.items())

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": clear["a"] * clear["b"]}

    def cost(self, ring: Ring) -> Cost:
        return Cost((math.prod(self.shape) + math.prod(self.factor)) * ring.element_bytes, 1)


@final
@dataclass(frozen=True)
class Square(Demand):
    """Material for `count` squares."""

    count: int

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        return (Field("a", (self.count,), ring.bits, False), Field("c", (self.count,), ring.bits, True))

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": clear["a"] * clear["a"]}

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * ring.element_bytes, 1)


def multiply(party: Party, x: Shared, y: Shared, material: Material, label: str = "multiply") -> Shared:
    """Return shares of the elementwise product, with the fraction bits of both.

    Guarantee: see `Party`; both factors are opened under masks used once. Cost: two elements per product, 1 round.
    """
    if x.shape != y.shape:
        raise ConfigError("factors of different shapes", expected=str(x.shape), came=str(y.shape))
    demand, t = material.take(Product, x.elements.size)
    both = np.concatenate([x.elements.reshape(-1) - t["a"], y.elements.reshape(-1) - t["b"]])
    opened = party.open_elements(party.ring.wrap(both), label)
    e, f = opened[: demand.count], opened[demand.count :]
    share = t["c"] + e * t["b"] + t["a"] * f + (e * f if party.first else party.ring.constant(0))
    return Shared(party.ring.wrap(share).reshape(x.shape), x.fraction + y.fraction)


def multiply_spread(party: Party, x: Shared, y: Shared, material: Material, label: str = "multiply") -> Shared:
    """Return shares of x y, y broadcast over x, with the fraction bits of both.

    Guarantee: see `Party`; each element of both is opened once, under a mask used once. Cost: one element per element
    of x and of y, 1 round.
    """
    demand, t = material.take(SpreadProduct)
    if (x.shape, y.shape) != (demand.shape, demand.factor):
        raise ConfigError("material for other shapes", expected=repr(demand), came=f"{x.shape} and {y.shape}")
    both = np.concatenate([(x.elements - t["a"]).reshape(-1), (y.elements - t["b"]).reshape(-1)])
    opened = party.open_elements(party.ring.wrap(both), label)
    e, f = opened[: x.elements.size].reshape(x.shape), opened[x.elements.size :].reshape(y.shape)
    held = t["b"] + f if party.first else t["b"]
    return Shared(party.ring.wrap(t["c"] + e * held + t["a"] * f), x.fraction + y.fraction)


def square(party: Party, x: Shared, material: Material, label: str = "square") -> Shared:
    """Return shares of x^2, with twice the fraction bits. Guarantee: see `Party`. Cost: one element each, 1 round."""
    _, t = material.take(Square, x.elements.size)
    e = party.open_elements(party.ring.wrap(x.elements.reshape(-1) - t["a"]), label)
    share = t["c"] + e * (t["a"] + t["a"]) + (e * e if party.first else party.ring.constant(0))
    return Shared(party.ring.wrap(share).reshape(x.shape), 2 * x.fraction)
