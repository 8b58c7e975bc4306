"""exp of a masked value in one round: a factor that the dealer knows, times one that everybody knows.

Derivation: as in `lookup`, t = p h + v - w with v public, hence exp(t) = exp(p h - w) exp(v). The dealer shares the
first factor for every segment of the opened value; no polynomial, so that segments can be long and tables short.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import final

import numpy as np
from jaxtyping import Float64, UInt64

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

_FINE_BITS = 20
_POWER = 18
# A factor beyond belongs to a value outside the domain.
_LARGEST = 2.0**62


@final
@dataclass(frozen=True)
class Exponential(Demand):
    """Material for `count` values of exp(t 2^-fraction).

    t is read modulo 2^domain_bits, in 2^segments segments up to number `top`: it must lie in
    [(top - 2^segments + 1) h, top h), h = 2^(domain_bits - segments). The result has `scale` + `power` fraction bits
    and must keep below 2^(bits-2).
    """

    count: int
    fraction: int
    domain_bits: int
    segments: int
    top: int
    scale: int
    power: int

    @property
    def place_bits(self) -> int:
        """Return the bits of a place within a segment."""
        return self.domain_bits - self.segments

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        if not 2 <= self.domain_bits <= ring.bits or not 1 <= self.place_bits <= 24 or self.segments < 1:
            raise ConfigError(
                "no such exponential", expected="a domain of 2 to 64 bits, places of 1 to 24", came=f"{self}"
            )
        table = Field("table", (1 << self.segments, self.count), ring.bits, True)
        return (Field("mask", (self.count,), self.domain_bits, False), table)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        slots, mask = 1 << self.segments, clear["mask"].astype(np.uint64)
        segment, own = mask >> np.uint64(self.place_bits), self.own_factor(mask)
        steps = self.segment_factors()
        table = np.empty((slots, self.count), ring.dtype)
        for opened in range(slots):
            piece = (np.uint64(opened) - segment) & np.uint64(slots - 1)
            table[opened] = ring.from_integers(self.rounded(steps[piece], own))
        return {"table": table}

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * Ring(self.domain_bits, 0).element_bytes, 1)

    def own_factor(self, mask: UInt64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return exp(-w) for the places w of masks."""
        place = (mask & np.uint64((1 << self.place_bits) - 1)).astype(np.float64)
        return np.asarray(np.exp(-place / 2.0**self.fraction))

    def segment_factors(self) -> Float64[np.ndarray, " pieces"]:
        """Return exp(p h) by p modulo 2^segments."""
        slots, bottom = 1 << self.segments, self.top - (1 << self.segments) + 1
        numbers = bottom + (np.arange(slots) - bottom) % slots
        return np.asarray(np.exp(np.minimum(numbers * 2.0 ** (self.place_bits - self.fraction), 60.0)))

    def rounded(self, step: Float64[np.ndarray, " n"], own: Float64[np.ndarray, " n"]) -> np.ndarray:
        """Return the product with `scale` fraction bits; 0 where no value of the domain leads."""
        scaled = np.rint(step * own * 2.0**self.scale)
        return np.where(scaled < _LARGEST, scaled, 0.0).astype(np.int64)


def exponential_between(ring: Ring, count: int, low: float, high: float, places: int) -> Exponential:
    """Return the material for exp of x in [low, high), with an error of about 2^-places and relative 2^-17.

    Longer segments make a shorter table and leave fewer exact places.
    """
    scale = ring.bits - 3 - max(0, math.ceil(high / math.log(2))) - _POWER
    longest = (scale + 1 - places) * math.log(2)
    if longest <= 2.0**-4 or low >= high:
        raise ConfigError("no such exponential", expected="low < high, and room for the places", came=f"{low}..{high}")
    length = math.floor(math.log2(longest))
    top = math.floor(high / 2.0**length) + 1
    pieces = top - math.floor(low / 2.0**length) + 1
    segments = max(1, (pieces - 1).bit_length())
    return Exponential(count, ring.fraction, ring.fraction + length + segments, segments, top, scale, _POWER)


def exponential(party: Party, t: Elements, material: Material, label: str = "exp") -> Shared:
    """Return shares of exp, for this party's share of t modulo 2^domain_bits.

    Error: relative 2^-power, and 2^-scale exp(h) in all. A value outside the domain gives that of a number within,
    without notice. Guarantee: see `Party`; the one opened value is masked by a uniform element used once. Cost: one
    element of the domain's width each, 1 round; offline 2^segments elements each.
    """
    demand, arrays = material.take(Exponential, t.size)
    small = Ring(demand.domain_bits, 0)
    m = party.open_in(small, small.wrap(small.wrap(t.reshape(-1)) + arrays["mask"]), label).astype(np.uint64)
    segment = (m >> np.uint64(demand.place_bits)).astype(np.intp)
    factor = public_factor(demand, m).astype(party.ring.dtype)
    share = arrays["table"][segment, np.arange(demand.count)] * factor
    return Shared(party.ring.wrap(share).reshape(t.shape), demand.scale + demand.power)


def public_factor(demand: Exponential, opened: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Return exp(v) with `power` fraction bits for the places v of opened values: the same integers everywhere."""
    place = (opened & np.uint64((1 << demand.place_bits) - 1)).astype(np.intp)
    low = demand.place_bits // 2
    coarse = _exponentials(demand.place_bits - low, low - demand.fraction, demand.power)
    fine = _exponentials(low, -demand.fraction, _FINE_BITS)
    half = np.uint64(1 << (_FINE_BITS - 1))
    product = coarse[place >> low] * fine[place & ((1 << low) - 1)]
    return np.asarray((product + half) >> np.uint64(_FINE_BITS))


@functools.lru_cache(maxsize=32)
def _exponentials(bits: int, exponent: int, scale: int) -> UInt64[np.ndarray, " entries"]:
    """Return round(exp(i 2^exponent) 2^scale), by decimal arithmetic, which rounds alike on every machine."""
    context = Context(prec=40)
    unit = context.power(Decimal(2), Decimal(exponent))
    found = [context.exp(context.multiply(unit, Decimal(i))) for i in range(1 << bits)]
    scaled = [context.multiply(value, Decimal(1 << scale)) for value in found]
    return np.array([int(context.to_integral_value(value)) for value in scaled], np.uint64)
