"""Rows brought to mean 0 and variance 1: what LayerNorm does before its gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.rows import RowScaling, open_rows
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

# Variances up to 2^10.
_LARGEST = 10
VARIANCE_LIMIT = 2.0**_LARGEST
_CURVE_PLACES = 34
# Fraction bits that centred values have more than the input, for rows of small deviation.
_FINER = 4


@final
@dataclass(frozen=True)
class Standardization:
    """(x - mean) / sqrt(variance + epsilon) over the last axis of [rows, columns], `fraction` bits in.

    The variance must keep below 2^10. The result has `result_fraction` fraction bits; its relative error grows with the
    deviation and with 1 / epsilon, up to 2^-12 for epsilon 1e-5 and 2^-7 for 1e-8 (at a variance of 2^10).
    """

    rows: int
    columns: int
    fraction: int
    epsilon: float
    style: Layout = STANDARD

    @property
    def halvings(self) -> int:
        """Return how often columns (x - mean), which needs no division, is halved to give about x - mean."""
        return (self.columns - 1).bit_length()

    @property
    def lift(self) -> int:
        """Return the fraction bits that rows are given for there to be some to truncate."""
        return max(0, _FINER + 1 - self.halvings)

    @property
    def shift(self) -> int:
        """Return the fraction bits that centred rows have too many."""
        return self.halvings + self.lift - _FINER

    @property
    def places(self) -> int:
        """Return the fraction bits of centred rows."""
        return self.fraction + _FINER

    @property
    def floor(self) -> int:
        """Return columns times epsilon as the sums of squares have it, in units of 4^-places."""
        ratio = self.columns / 2.0**self.halvings
        return max(1, round(self.columns * self.epsilon * ratio**2 * 4.0**self.places))

    @property
    def inverse_root(self) -> Inverse:
        """Return the inverse square root of sums of squares, with a factor of sqrt(columns)."""
        first, last = self.floor.bit_length() - 1, self._last
        weights = 60 - _CURVE_PLACES - math.ceil(1 - math.log2(self.epsilon) / 2)
        scales = (self._inverse_places, weights, _CURVE_PLACES, math.sqrt(self.columns))
        return Inverse("inverse_root", self.rows, 2 * self.places, first, last, *scales, self.style)

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        """Return the material, in order of use."""
        sized = 2 <= self.columns < 4096 and self._last <= ring.bits - 2
        if ring.bits < 64 or not sized or not 1e-8 <= self.epsilon <= 1:
            expected = "64 bits, 2 to 4095 columns, 2 fraction + log2 columns up to 44, epsilon from 1e-8 to 1"
            raise ConfigError("no such standardization", expected=expected, came=f"{self} in {ring}")
        return (RowScaling(self.rows, self.columns, self.shift, True), *self.inverse_root.demands(ring))

    def cost(self, ring: Ring) -> Cost:
        """Return what each party sends."""
        return sum((demand.cost(ring) for demand in self.demands(ring)), Cost())

    @property
    def result_fraction(self) -> int:
        """Return the fraction bits of the result."""
        return self.places + self._inverse_places

    @property
    def _last(self) -> int:
        """Return the place of the leading bit of the largest sum of squares."""
        return 2 * self.places + math.ceil(math.log2(self.columns)) + _LARGEST

    @property
    def _inverse_places(self) -> int:
        return 48 - self.places


def centred(ring: Ring, x: Shared, what: Standardization) -> Shared:
    """Return columns 2^-halvings (x - mean) with `shift` more fraction bits than `places`; exact and local."""
    total = x.elements.sum(axis=1, keepdims=True, dtype=ring.dtype)
    spread = (x.elements * ring.constant(what.columns) - total) * ring.constant(1 << what.lift)
    return Shared(ring.wrap(spread), what.places + what.shift)


def standardize(
    party: Party, x: Shared, what: Standardization, materials: Sequence[Material], label: str = "standardize"
) -> Shared:
    """Return shares of every row less its mean, over its deviation.

    Guarantee: see `Party`. Cost: `what.cost`: one element per value and some bytes per row, 9 rounds with the standard
    layout; the result still has to be truncated.
    """
    ring = party.ring
    rows = open_rows(party, centred(ring, x, what), materials[0], f"{label}/rows")
    squares = rows.squares()
    if party.first:
        squares = Shared(ring.wrap(squares.elements + ring.constant(what.floor)), squares.fraction)
    return rows.scaled(inverse(party, squares, what.inverse_root, materials[1:], f"{label}/inverse"))
