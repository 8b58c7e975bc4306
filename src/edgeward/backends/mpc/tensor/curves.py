"""Curved functions of secret tensors: ranges and sizes of the protocols behind them, and how two parties run them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.curved import Curved, curved
from edgeward.backends.mpc.protocols.exponential import Exponential, exponential
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.presets import tailed
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError

Run = Callable[[Party, Shared, Sequence[Material], str], Shared]
Prepared = tuple[Sequence[Demand], Run]

# 64 segments of a half, up to 11: exp from -20.5, with 28 + 17 fraction bits below 2^62.
_EXP_DOMAIN, _EXP_SEGMENTS, _EXP_TOP, _EXP_SCALE, _EXP_POWER = 5, 6, 22, 28, 17
# Reciprocals of 2^-8 to 2^13, with 38 + 13 fraction bits; logarithms from 2^-12 on.
_INVERSE_LEAST, _INVERSE_MOST, _INVERSE_SCALE, _LOG_LEAST, _LOG_BITS = -8, 12, 38, -12, 4


def _tailed(name: str) -> Callable[[Ring, Shape, Layout], Prepared]:
    def prepared(ring: Ring, shape: Shape, layout: Layout) -> Prepared:
        demand = Curved(math.prod(shape), 0, tailed(name, ring), layout)
        return [demand], lambda party, x, materials, label: curved(party, x, materials[0], label)

    return prepared


def _check_ring(name: str, ring: Ring, size: float) -> None:
    """Refuse a ring in which results up to 2^`size`, with their fraction bits, do not keep below 2^(bits-2)."""
    least = math.floor(size) + 3
    if ring.bits < least:
        raise ConfigError(f"{name} leaves this ring", expected=f"{least} bits or more", came=f"{ring.bits} bits")


def exponential_demand(ring: Ring, count: int) -> Exponential:
    """Return the material of exp from -20.5 to 11. Raises: `ConfigError` for a ring in which its results wrap."""
    f = ring.fraction
    largest = _EXP_TOP * 2.0 ** (_EXP_DOMAIN - _EXP_SEGMENTS) / math.log(2)
    _check_ring("exp", ring, largest + _EXP_SCALE + _EXP_POWER)
    return Exponential(count, f, f + _EXP_DOMAIN, _EXP_SEGMENTS, _EXP_TOP, _EXP_SCALE, _EXP_POWER)


def _exp(ring: Ring, shape: Shape, layout: Layout) -> Prepared:
    demand = exponential_demand(ring, math.prod(shape))
    return [demand], lambda party, x, materials, label: exponential(party, x.elements, materials[0], label)


def inverse_demand(name: str, ring: Ring, count: int, layout: Layout) -> Inverse:
    """Return what "reciprocal" (from 2^-8) and "log" (from 2^-12) compute, up to 2^13. Raises: as exp."""
    f = ring.fraction
    _check_ring(name, ring, _INVERSE_SCALE + (_LOG_BITS if name == "log" else 1 + _INVERSE_MOST - _INVERSE_LEAST))
    least, most = (_LOG_LEAST if name == "log" else _INVERSE_LEAST), _INVERSE_MOST
    function, weights = ("logarithm", 0) if name == "log" else (name, 1 + most)
    return Inverse(function, count, f, f + least, f + most, f, weights, _INVERSE_SCALE, style=layout)


def _inverse(name: str) -> Callable[[Ring, Shape, Layout], Prepared]:
    def prepared(ring: Ring, shape: Shape, layout: Layout) -> Prepared:
        what = inverse_demand(name, ring, math.prod(shape), layout)
        return what.demands(ring), lambda party, x, materials, label: _inverted(party, x, what, materials, label)

    return prepared


def _inverted(party: Party, x: Shared, what: Inverse, materials: Sequence[Material], label: str) -> Shared:
    flat = inverse(party, Shared(x.elements.reshape(-1), x.fraction), what, materials, label)
    return Shared(flat.elements.reshape(x.shape), flat.fraction)


def softmax_demand(ring: Ring, shape: Shape, layout: Layout) -> Softmax:
    """Return what a softmax over the last of two axes computes."""
    if len(shape) != 2:
        raise ConfigError("softmax is over the last of two axes", expected="[rows, columns]", came=str(list(shape)))
    return Softmax(*shape, 0, ring.fraction, layout)


def _softmax(ring: Ring, shape: Shape, layout: Layout) -> Prepared:
    what = softmax_demand(ring, shape, layout)
    return what.demands(ring), lambda party, x, materials, label: softmax(party, x, what, materials, label)


CURVES: Mapping[str, Callable[[Ring, Shape, Layout], Prepared]] = {
    "exp": _exp,
    "reciprocal": _inverse("reciprocal"),
    "softmax": _softmax,
    "log": _inverse("log"),
    "sigmoid": _tailed("sigmoid"),
    "tanh": _tailed("tanh"),
}
"""By name: from ring, shape and comparison to the material and the protocol of one use."""
