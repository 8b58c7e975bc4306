"""Secret tensors among three parties with replicated shares, without a dealer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.protocols.presets import tailed
from edgeward.backends.mpc.replicated import activation, curves, products, truncation
from edgeward.backends.mpc.replicated.inverse import inverse, inverse_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.schedule import Move, Moves, from_one, rotation, under
from edgeward.backends.mpc.replicated.softmax import softmax, softmax_moves
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.tensor.curves import exponential_demand, inverse_demand, softmax_demand
from edgeward.backends.mpc.tensor.protocols import Protocols, Value, broadcast
from edgeward.core.errors import unknown_name


@final
class Trio(Protocols):
    """A party of three. Guarantee: see `Member`. `declared` is what was asked for so far, as moves."""

    parties = 3

    def __init__(self, member: Member, layout: Layout = STANDARD) -> None:
        """Work as `member`."""
        super().__init__()
        self.ring, self.number = member.ring, member.number
        self.declared: list[Move] = []
        self._member, self._layout, self.width = member, layout, layout.width

    @property
    def firsts(self) -> tuple[bool, ...]:
        return self._member.firsts

    def enter(self, x: Elements | None, shape: Shape, owner: int) -> Value:
        label = self.label("enter")
        self.declared += from_one(owner, int(np.prod(shape)) * self.ring.element_bytes, label)
        return _value(self._member.enter(x, shape, self.ring.fraction, owner, label))

    def multiply(self, x: Value, y: Value) -> Value:
        label = self.label("multiply")
        self.declared += products.product_moves(self.ring, broadcast([x.shape, y.shape]), label)
        return _value(products.multiply(self._member, _replicated(x), _replicated(y), label))

    def matrix_multiply(self, x: Value, y: Value) -> Value:
        label = self.label("matmul")
        self.declared += products.product_moves(self.ring, (x.shape[0], y.shape[1]), label)
        return _value(products.matrix_multiply(self._member, _replicated(x), _replicated(y), label))

    def bilinear(self, map_: LinearMap, x: Value, w: Value) -> Value:
        label = self.label("bilinear")
        self.declared += products.product_moves(self.ring, map_.output_shape(x.shape, w.shape), f"{label}/0")
        return _value(products.linear(self._member, [map_], _replicated(x), [_replicated(w)], label)[0])

    def truncate(self, x: Value, shift: int) -> Value:
        label = self.label("truncate")
        self.declared += truncation.truncation_moves(self.ring, x.size, shift, label)
        return _value(truncation.truncate(self._member, _replicated(x), shift, label))

    def relu(self, x: Value, shift: int) -> Value:
        label = self.label("relu")
        self.declared += activation.relu_moves(self.ring, x.size, shift, self._layout, label)
        return _value(activation.relu(self._member, _replicated(x), shift, self._layout, label))

    def nonnegative(self, x: Value, shift: int) -> Value:
        label = self.label("sign")
        self.declared += activation.step_moves(self.ring, x.size, self._layout, label)
        return _value(activation.sign(self._member, _replicated(x), shift, self._layout, label))

    def reveal(self, x: Value, to: int | None) -> Elements | None:
        label, size = self.label("reveal"), x.size * self.ring.element_bytes
        self.declared += rotation(size, label) if to is None else from_one((to + 1) % 3, size, label)
        if to is None:
            return self._member.open(_replicated(x), label)
        return self._member.reveal(_replicated(x), to, label)

    def curve(self, name: str, x: Value) -> Value:
        if name not in CURVES:
            raise unknown_name("function", name, CURVES)
        label, given, (moves, result) = self.label(name), _replicated(x), CURVES[name](self.ring, x.shape, self._layout)
        self.declared += under(label, moves)
        return _value(result(self._member, given, label))


_Run = Callable[[Member, Replicated, str], Replicated]


def _tailed(name: str) -> Callable[[Ring, Shape, Layout], tuple[Moves, _Run]]:
    def prepared(ring: Ring, shape: Shape, layout: Layout) -> tuple[Moves, _Run]:
        what = tailed(name, ring)
        moves = curves.activation_moves(ring, math.prod(shape), what, layout)
        return moves, lambda member, x, label: curves.activate(member, x, what, layout, label)

    return prepared


def _exp(ring: Ring, shape: Shape, layout: Layout) -> tuple[Moves, _Run]:
    count = math.prod(shape)
    what = exponential_demand(ring, count)
    moves = curves.table_moves(ring, what.fields(ring)[1], count)
    return moves, lambda member, x, label: curves.exponential_value(member, x, what, label)


def _inverse(name: str) -> Callable[[Ring, Shape, Layout], tuple[Moves, _Run]]:
    def prepared(ring: Ring, shape: Shape, layout: Layout) -> tuple[Moves, _Run]:
        what = inverse_demand(name, ring, math.prod(shape), layout)
        return inverse_moves(ring, what), lambda member, x, label: inverse(member, x, what, label)

    return prepared


def _softmax(ring: Ring, shape: Shape, layout: Layout) -> tuple[Moves, _Run]:
    what = softmax_demand(ring, shape, layout)
    return softmax_moves(ring, what), lambda member, x, label: softmax(member, x, what, label)


CURVES: Mapping[str, Callable[[Ring, Shape, Layout], tuple[Moves, _Run]]] = {
    "exp": _exp,
    "reciprocal": _inverse("reciprocal"),
    "softmax": _softmax,
    "log": _inverse("log"),
    "sigmoid": _tailed("sigmoid"),
    "tanh": _tailed("tanh"),
}
"""By name: from ring, shape and comparison to what is sent and the protocol of one use."""


def _value(x: Replicated) -> Value:
    return Value((x.own, x.next), x.fraction)


def _replicated(x: Value) -> Replicated:
    return Replicated(x.parts[0], x.parts[1], x.fraction)
