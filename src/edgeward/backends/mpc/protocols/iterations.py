"""exp, reciprocal and inverse square root as CrypTen approximates them: iterations of products, for comparison.

Formulas as in CrypTen 0.4 (Knott et al., NeurIPS 2021, arXiv 2109.00984): exp x = (1 + x / 2^8)^(2^8); reciprocal from
y = 3 exp(1 - 2x) + 0.003 by ten steps y <- 2y - x y^2; inverse root from 2.2 exp(-x/2 - 0.2) + 0.2 - x / 1024 by
three steps y <- y (3 - x y^2) / 2 (here from 2.25 exp). Products are truncated exactly: a round more than with
CrypTen's local truncation, and no failures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.multiplication import Product, Square, multiply, square
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

_DOUBLINGS = 8


class Arithmetic(ABC):
    """What an iteration does with numbers of one fixed-point format, shared or not."""

    def __init__(self, ring: Ring, first: bool) -> None:
        """Keep the ring, and whether this side adds constants."""
        self.ring, self._first = ring, first

    @abstractmethod
    def multiply(self, x: Elements, y: Elements, shift: int) -> Elements:
        """Return x y 2^-shift."""

    @abstractmethod
    def halve(self, x: Elements, shift: int) -> Elements:
        """Return x 2^-shift."""

    def affine(self, x: Elements, gain: int, constant: float) -> Elements:
        """Return gain x + constant; local."""
        scaled = x * self.ring.constant(gain)
        return self.ring.wrap(scaled + self.ring.encode(np.array([constant]))[0] if self._first else scaled)


def _exp(a: Arithmetic, x: Elements) -> Elements:
    return _squared(a, a.affine(a.halve(x, _DOUBLINGS), 1, 1.0))


def _squared(a: Arithmetic, y: Elements) -> Elements:
    for _ in range(_DOUBLINGS):
        y = a.multiply(y, y, a.ring.fraction)
    return y


def _reciprocal(a: Arithmetic, x: Elements) -> Elements:
    y, f = a.affine(_exp(a, a.affine(x, -2, 1.0)), 3, 0.003), a.ring.fraction
    for _ in range(10):
        y = a.ring.wrap(y + y - a.multiply(x, a.multiply(y, y, f), f))
    return y


def _inverse_root(a: Arithmetic, x: Elements) -> Elements:
    start, f = a.affine(a.halve(x, _DOUBLINGS + 1), -1, 1.0 - 0.2 / 2**_DOUBLINGS), a.ring.fraction
    # 2.2 as 11 / 5 would need a division: the product with 2.25 starts as well.
    y = a.affine(a.halve(a.ring.wrap(_squared(a, start) * a.ring.constant(9)), 2), 1, 0.2)
    y = a.ring.wrap(y - a.halve(x, 10))
    for _ in range(3):
        y = a.multiply(y, a.affine(a.multiply(x, a.multiply(y, y, f), f), -1, 3.0), f + 1)
    return y


_PROGRAMS: dict[str, Callable[[Arithmetic, Elements], Elements]] = {
    "exp": _exp,
    "reciprocal": _reciprocal,
    "inverse_root": _inverse_root,
}


@final
@dataclass(frozen=True)
class Iterated:
    """`function` ("exp", "reciprocal" or "inverse_root") of `count` values in the ring's format."""

    function: str
    count: int

    def __post_init__(self) -> None:
        """Refuse another function."""
        if self.function not in _PROGRAMS:
            raise ConfigError("no such iteration", expected=", ".join(_PROGRAMS), came=self.function)

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        """Return the material, in order of use."""
        listed = _Listed(ring, self.count)
        self.of(listed, np.ones(1, ring.dtype))
        return tuple(listed.demands)

    def cost(self, ring: Ring) -> Cost:
        """Return what each party sends."""
        return sum((demand.cost(ring) for demand in self.demands(ring)), Cost())

    def of(self, arithmetic: Arithmetic, x: Elements) -> Elements:
        """Return the function of x in some arithmetic."""
        return _PROGRAMS[self.function](arithmetic, x)


def iterate(party: Party, x: Shared, what: Iterated, materials: Sequence[Material], label: str = "iterate") -> Shared:
    """Return shares of the function of x.

    Absolute error up to some 2^-8 for exp on [-8, 0] with 16 fraction bits (measured); reciprocal for x in (0, 200),
    inverse root for x in (0.05, 200), as far as the starting values reach. Guarantee: see `Party`. Cost: `what.cost`.
    """
    return Shared(what.of(_Secret(party, x, iter(materials), label), x.elements), x.fraction)


@final
class _Secret(Arithmetic):
    """On shares, with material."""

    def __init__(self, party: Party, x: Shared, materials: Iterator[Material], label: str) -> None:
        super().__init__(party.ring, party.first)
        self._party, self._fraction, self._materials, self._label = party, x.fraction, materials, label

    def multiply(self, x: Elements, y: Elements, shift: int) -> Elements:
        left, right = Shared(x, self._fraction), Shared(y, self._fraction)
        material = next(self._materials)
        if x is y:
            long = square(self._party, left, material, self._label)
        else:
            long = multiply(self._party, left, right, material, self._label)
        return truncate(self._party, long, next(self._materials), self._label).elements

    def halve(self, x: Elements, shift: int) -> Elements:
        return truncate(self._party, Shared(x, self._fraction + shift), next(self._materials), self._label).elements


@final
class _Listed(Arithmetic):
    """On nothing: notes the material."""

    def __init__(self, ring: Ring, count: int) -> None:
        super().__init__(ring, True)
        self._count, self.demands = count, list[Demand]()

    def multiply(self, x: Elements, y: Elements, shift: int) -> Elements:
        self.demands.append(Square(self._count) if x is y else Product(self._count))
        return self.halve(x.copy(), shift)

    def halve(self, x: Elements, shift: int) -> Elements:
        self.demands.append(Truncation(self._count, shift))
        return np.array(x)
