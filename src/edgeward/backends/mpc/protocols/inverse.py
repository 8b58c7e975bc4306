"""Reciprocal, inverse square root and logarithm of positive shared values over a wide range.

The leading bit is moved to one place (`normalization`), a curve over [1, 2) is looked up there, and the answer is moved
back by a factor that the leading bit names.
"""

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
from edgeward.backends.mpc.protocols.curve import Curve
from edgeward.backends.mpc.protocols.lookup import Lookup, lookup
from edgeward.backends.mpc.protocols.multiplication import Product, multiply
from edgeward.backends.mpc.protocols.normalization import Normalization, normalize
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, add
from edgeward.core.errors import ConfigError

_POWERS = {"reciprocal": 1.0, "inverse_root": 0.5}


@final
@dataclass(frozen=True)
class Inverse:
    """What to compute of `count` values in [2^first, 2^(last + 1)) units of 2^-fraction, and how exactly.

    `function` is "reciprocal", "inverse_root" (both times `factor`) or "logarithm". The result is truncated to
    `result_fraction` fraction bits; before, it has `curve_scale` + `weight_scale` and must keep below 2^(bits-2).
    Relative error about 2^-(curve_scale / 2 - 2), and 2^-weight_scale over the least result.
    """

    function: str
    count: int
    fraction: int
    first: int
    last: int
    result_fraction: int
    weight_scale: int = 0
    curve_scale: int = 40
    factor: float = 1.0
    style: Layout = STANDARD

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        """Return the material, in order of use."""
        made = (Normalization(self.count, self.first, self.last, self.style), Lookup(self.count, self.curve(ring)))
        product = () if self.function == "logarithm" else (Product(self.count),)
        return (*made, *product, Truncation(self.count, self.drop))

    def cost(self, ring: Ring) -> Cost:
        """Return what each party sends."""
        return sum((demand.cost(ring) for demand in self.demands(ring)), Cost())

    @property
    def drop(self) -> int:
        """Return how many fraction bits are dropped at the end."""
        return self.curve_scale + (0 if self.function == "logarithm" else self.weight_scale) - self.result_fraction

    def curve(self, ring: Ring) -> Curve:
        """Return the curve over [1, 2), in segments of a sixth."""
        return Curve(self.function, self.last, 2, 3, 5, 6, 3, ring.bits, self.curve_scale)

    def weights(self) -> list[int]:
        """Return, for every place e of the leading bit, the factor (a logarithm: the summand) that belongs to it."""
        places = range(self.first - self.fraction, self.last - self.fraction + 1)
        if self.function == "logarithm":
            return [round(e * math.log(2) * 2**self.curve_scale) for e in places]
        if self.function not in _POWERS:
            raise ConfigError("no such inverse", expected="reciprocal, inverse_root or logarithm", came=self.function)
        return [round(self.factor * 2.0 ** (self.weight_scale - _POWERS[self.function] * e)) for e in places]


def inverse(party: Party, z: Shared, what: Inverse, materials: Sequence[Material], label: str = "inverse") -> Shared:
    """Return shares of the function of z > 0.

    A value outside the range gives a wrong result without notice. Guarantee: see `Party`. Cost: `what.cost`: with the
    standard layout 7 rounds, a logarithm 6.
    """
    if z.fraction != what.fraction:
        raise ConfigError("an inverse of other numbers", expected=f"{what.fraction} fraction bits", came=repr(z))
    moved = normalize(party, z, materials[0], f"{label}/normalize")
    mantissa = lookup(party, moved.value, materials[1], f"{label}/lookup")
    if what.function == "logarithm":
        long = add(party.ring, mantissa, moved.weighted(party, what.weights(), mantissa.fraction))
    else:
        factor = moved.weighted(party, what.weights(), what.weight_scale)
        long = multiply(party, mantissa, factor, materials[2], f"{label}/multiply")
    return truncate(party, long, materials[-1], f"{label}/truncate")
