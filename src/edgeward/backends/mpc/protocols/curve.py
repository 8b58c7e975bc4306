"""Curves as piecewise polynomials that an opened masked value looks up: public descriptions and their numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy.polynomial import chebyshev, polynomial

from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError

# Public powers of a place in a segment carry at most this many bits.
_POWER_BITS = 20


@final
@dataclass(frozen=True)
class Curve:
    """A function of a fixed-point number t 2^-fraction, as 2^segments polynomials of one degree.

    `gain` t is read modulo 2^(exponent + fraction); piece number p stands for numbers around p h, where h is the length
    of a segment, from p = `first` on. A look-up may take the piece of either end of the segment that t lies in, so each
    is good on both sides of its place, and t must lie in [first h, (first + 2^segments - 1) h). Results are integers
    modulo 2^bits with `scale` fraction bits, of the function minus `less`, and must keep below 2^(bits-2).

    >>> Curve("reciprocal", 30, 1, 4, 3).length
    0.125
    """

    function: str
    fraction: int
    exponent: int
    segments: int
    degree: int
    first: int = 0
    gain: int = 1
    bits: int = 64
    scale: int = 40
    less: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a description that has no meaning."""
        whole = self.function in FUNCTIONS and self.gain >= 1 and 0 <= self.degree <= 12 and 0 <= self.scale < self.bits
        if not whole or not 1 <= self.place_bits <= 62 or not 1 <= self.segments <= 8 or not 2 <= self.bits <= 64:
            raise ConfigError(
                "no such curve", expected=f"one of {', '.join(FUNCTIONS)} and small sizes", came=f"{self}"
            )

    @property
    def domain_bits(self) -> int:
        """Return how many low bits of gain t are read."""
        return self.exponent + self.fraction

    @property
    def place_bits(self) -> int:
        """Return the bits of a place within a segment."""
        return self.domain_bits - self.segments

    @property
    def power_bits(self) -> int:
        """Return the fraction bits of a power of a place."""
        return min(self.place_bits, _POWER_BITS, self.scale // 2)

    @property
    def length(self) -> float:
        """Return the length of a segment in units of x."""
        return 2.0 ** (self.exponent - self.segments) / self.gain

    @property
    def table_bytes(self) -> int:
        """Return the bytes of corrections that the table of one value takes."""
        return (self.degree + 1) * (1 << self.segments) * Ring(self.bits, 0).element_bytes


def places(curve: Curve, t: Elements) -> tuple[UInt64[np.ndarray, "..."], UInt64[np.ndarray, "..."]]:
    """Return segment (modulo their number) and place in the segment of numbers or masks."""
    low = (t.astype(np.uint64) * np.uint64(curve.gain)) & np.uint64((1 << curve.domain_bits) - 1)
    return low >> np.uint64(curve.place_bits), low & np.uint64((1 << curve.place_bits) - 1)


@functools.lru_cache(maxsize=64)
def pieces(curve: Curve) -> Float64[np.ndarray, "pieces powers"]:
    """Return the coefficients of every piece in (x - p h) / h, by p modulo their number, lowest power first.

    Chebyshev interpolation on [-1, 1].
    """
    count, rows, nodes = 1 << curve.segments, [], chebyshev.chebpts1(curve.degree + 1)
    for slot in range(count):
        number = curve.first + (slot - curve.first) % count
        values = FUNCTIONS[curve.function]((number + nodes) * curve.length) - curve.less
        row = chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, curve.degree))
        rows.append(np.pad(row, (0, curve.degree + 1 - len(row))))
    return np.stack(rows)


def shifted(
    curve: Curve, rows: Float64[np.ndarray, " powers *n"], place: np.ndarray
) -> Int64[np.ndarray, " powers *n"]:
    """Return the integer coefficients of p(y - place / 2^place_bits) in y, for one piece p per value.

    Term by term, so that a dealer and an oracle round alike. The lowest has `scale` fraction bits, the others
    `power_bits` less.
    """
    moved, step = [row.copy() for row in rows], place / -(2.0**curve.place_bits)
    for start in range(curve.degree):
        for i in range(curve.degree - 1, start - 1, -1):
            moved[i] += step * moved[i + 1]
    scales = [curve.scale] + [curve.scale - curve.power_bits] * curve.degree
    return np.stack([np.rint(row * 2.0**scale).astype(np.int64) for row, scale in zip(moved, scales, strict=True)])


def powers(curve: Curve, place: UInt64[np.ndarray, "*n"]) -> list[UInt64[np.ndarray, "*n"]]:
    """Return the public powers of places, the first with `power_bits` fraction bits: integers, equal everywhere."""
    bits = np.uint64(curve.power_bits)
    base = place >> np.uint64(curve.place_bits - curve.power_bits)
    found = [base] if curve.degree else []
    while len(found) < curve.degree:
        found.append((found[-1] * base) >> bits)
    return found


def combined(curve: Curve, terms: Elements, place: UInt64[np.ndarray, "*n"]) -> Elements:
    """Return the sum of `terms` (coefficients or shares of them, lowest first) times powers, modulo 2^bits."""
    ring = Ring(curve.bits, 0)
    total = terms[0]
    for term, power in zip(terms[1:], powers(curve, place), strict=True):
        total = total + term * power.astype(ring.dtype)
    return ring.wrap(total)


def worst_error(curve: Curve, low: float, high: float, samples: int = 20001) -> float:
    """Return the largest error of a look-up of x in [low, high) over many x, both pieces that may be taken."""
    x = np.linspace(low, high, samples, endpoint=False)
    right, errors = FUNCTIONS[curve.function](x) - curve.less, []
    for above in (0, 1):
        number = np.floor(x / curve.length).astype(int) + above
        u = x / curve.length - number
        rows = pieces(curve)[number % (1 << curve.segments)]
        errors.append(np.abs(polynomial.polyval(u, rows.T, tensor=False) - right).max())
    return float(max(errors))


def _gaussian(x: np.ndarray) -> np.ndarray:
    erf = np.array([math.erf(v / math.sqrt(2)) for v in np.ravel(x)]).reshape(np.shape(x))
    return np.asarray(0.5 * (1 + erf))


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -50, 50))))


FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "reciprocal": lambda x: 1 / np.maximum(x, 0.25),
    "inverse_root": lambda x: 1 / np.sqrt(np.maximum(x, 0.25)),
    "logarithm": lambda x: np.log(np.maximum(x, 0.25)),
    "sigmoid": _logistic,
    "tanh": np.tanh,
    "silu": lambda x: x * _logistic(x),
    "gelu": lambda x: x * _gaussian(x),
    "gelu_tanh": lambda x: x * _logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    # Between the bounds of the curve only; beyond, the tails hold.
    "hard_sigmoid": lambda x: x / 6 + 0.5,
    "hard_swish": lambda x: x * (x + 3) / 6,
}
"""Every function that has a curve."""
