"""The curves of activations: bounds, tails and tables that keep every error below 2^-(f-4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.curve import FUNCTIONS, Curve
from edgeward.backends.mpc.protocols.curved import Tailed
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Shape:
    """A curve between -bound and bound, with its tails; exponent, segments, degree and gain as in `Curve`."""

    bound: float
    below: float
    above: float | None
    exponent: int
    segments: int
    degree: int
    gain: int


# Polynomials that err by less than 2^-13 in small tables (by search); smooth tails err by about 2^-16 at the bounds.
SHAPES: Mapping[str, Shape] = {
    "gelu": Shape(4.5, 0.0, None, 6, 3, 8, 5),
    "gelu_tanh": Shape(4.5, 0.0, None, 6, 3, 8, 5),
    "silu": Shape(12.0, 0.0, None, 5, 4, 8, 1),
    "sigmoid": Shape(10.5, 0.0, 1.0, 7, 4, 7, 5),
    "tanh": Shape(5.5, -1.0, 1.0, 6, 4, 7, 5),
    "hard_sigmoid": Shape(3.0, 0.0, 1.0, 4, 2, 1, 1),
    "hard_swish": Shape(3.0, 0.0, None, 4, 2, 2, 1),
}


def tailed(name: str, ring: Ring) -> Tailed:
    """Return the activation called `name` for values with the fraction bits of `ring`.

    >>> tailed("hard_swish", Ring(64, 16)).curve.table_bytes
    96
    """
    if name not in SHAPES:
        raise ConfigError("no such activation", expected=", ".join(SHAPES), came=name)
    s, f = SHAPES[name], ring.fraction
    ends = np.array([-0.5, 0.5]) * 2.0**s.exponent / s.gain
    reach = float(np.abs(FUNCTIONS[name](ends)).max()) + 1
    scale = min(ring.bits - 3 - math.ceil(math.log2(reach)), f + 24)
    first = -(1 << (s.segments - 1))
    curve = Curve(name, f, s.exponent, s.segments, s.degree, first, s.gain, ring.bits, scale, s.below)
    one = 1 << f
    above = None if s.above is None else round(s.above * one)
    return Tailed(curve, round(-s.bound * one), round(s.bound * one), round(s.below * one), above)
