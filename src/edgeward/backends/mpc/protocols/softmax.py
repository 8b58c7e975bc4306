"""Softmax of rows: a coarse maximum, exponentials by one look-up, and one reciprocal per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum, below_maximum
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.exponential import Exponential, exponential
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.rows import RowScaling, open_rows
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

# Steps of two, so that exponentials lie below e^2; 64 of them reach from -64 to 62.
_STEP, _BINS, _REACH = 1, 6, 62
# Exponentials are read modulo 256, in segments of 16.
_DOMAIN, _SEGMENTS, _POWER = 8, 4, 17
# Fraction bits of the exponentials that are added up, and of the reciprocal of their sum.
_PLACES, _INVERSE_PLACES = 20, 40


@final
@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis of [rows, columns], of values truncated by `shift` bits to `fraction` fraction bits.

    Values must lie in [-64, 62). The result has `result_fraction` fraction bits.
    """

    rows: int
    columns: int
    shift: int
    fraction: int
    style: Layout = STANDARD

    @property
    def largest(self) -> float:
        """Return what every value must keep below."""
        return float(_REACH)

    @property
    def lowest(self) -> float:
        """Return the size of the least value."""
        return float(_REACH + 2)

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        """Return the material, in order of use."""
        if ring.bits < 64 or not 8 <= self.fraction <= 20 or not 1 <= self.columns < 4096:
            expected = "64 bits, 8 to 20 of fraction, fewer than 4096 columns"
            raise ConfigError("no such softmax", expected=expected, came=f"{self} in {ring}")
        step, domain, scale = self.fraction + _STEP, self.fraction + _DOMAIN, ring.bits - 6 - _POWER
        return (
            CoarseMaximum(self.rows, self.columns, self.shift, step, _BINS, domain),
            Exponential(self.rows * self.columns, self.fraction, domain, _SEGMENTS, 1, scale, _POWER),
            RowScaling(self.rows, self.columns, scale + _POWER - _PLACES, False),
            *self.reciprocal.demands(ring),
        )

    def cost(self, ring: Ring) -> Cost:
        """Return what each party sends."""
        return sum((demand.cost(ring) for demand in self.demands(ring)), Cost())

    @property
    def result_fraction(self) -> int:
        """Return the fraction bits of the result."""
        return _PLACES + _INVERSE_PLACES

    @property
    def reciprocal(self) -> Inverse:
        """Return the reciprocal of sums, which lie between e^-2 (less rounding) and columns times e^2."""
        last = _PLACES + 2 + max(1, math.ceil(math.log2(self.columns)))
        scales = (_INVERSE_PLACES, last - _PLACES)
        return Inverse("reciprocal", self.rows, _PLACES, _PLACES - 3, last, *scales, style=self.style)


def softmax(party: Party, z: Shared, what: Softmax, materials: Sequence[Material], label: str = "softmax") -> Shared:
    """Return shares of softmax over the last axis of [rows, columns].

    Absolute error below 2^-14 (measured). Guarantee: see `Party`. Cost: `what.cost`: 12 rounds with the standard
    layout; the result still has to be truncated.
    """
    lower = below_maximum(party, z, materials[0], f"{label}/max")
    terms = exponential(party, lower, materials[1], f"{label}/exp")
    rows = open_rows(party, terms, materials[2], f"{label}/rows")
    total = rows.values().elements.sum(axis=1, dtype=party.ring.dtype)
    sums = Shared(party.ring.wrap(total), _PLACES)
    return rows.scaled(inverse(party, sums, what.reciprocal, materials[3:], f"{label}/inverse"))
