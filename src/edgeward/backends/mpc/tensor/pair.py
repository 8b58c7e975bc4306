"""Secret tensors among two parties with one-time material from a dealer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, Material, Supply
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, Sign, relu, sign
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply
from edgeward.backends.mpc.protocols.multiplication import (
    Product,
    SpreadProduct,
    Square,
    multiply,
    multiply_spread,
    square,
)
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.ring import Elements
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.tensor.bilinear import Bilinear, bilinear
from edgeward.backends.mpc.tensor.curves import CURVES
from edgeward.backends.mpc.tensor.protocols import Protocols, Value, broadcast
from edgeward.core.errors import unknown_name


@runtime_checkable
class Source(Protocol):
    """Where one party's material comes from; a `Supply` that was dealt the same demands is one."""

    def draw(self, demand: Demand) -> Material:
        """Return material for `demand`, given out once."""


@final
class Pair(Protocols):
    """A party of two. Guarantee: see `Party`. `declared` is the cost of what was asked for so far."""

    parties = 2

    def __init__(self, party: Party, source: Source, layout: Layout = STANDARD) -> None:
        """Work as `party` with material from `source`."""
        super().__init__()
        self.ring, self.number, self.declared = party.ring, party.number, Cost()
        self._party, self._source, self._layout, self.width = party, source, layout, layout.width

    @property
    def firsts(self) -> tuple[bool, ...]:
        return (self._party.first,)

    def enter(self, x: Elements | None, shape: Shape, owner: int) -> Value:
        # The owner's share is the value itself: whatever the other receives later is masked, or follows from a result.
        self.label("enter")
        mine = x if x is not None and self.number == owner else np.zeros(shape, self.ring.dtype)
        return Value((mine,), self.ring.fraction)

    def multiply(self, x: Value, y: Value) -> Value:
        label, shape = self.label("multiply"), broadcast([x.shape, y.shape])
        if x is y:
            return _value(square(self._party, _shared(x), self._draw(Square(x.size)), label))
        if x.shape == y.shape:
            return _value(multiply(self._party, _shared(x), _shared(y), self._draw(Product(x.size)), label))
        if shape not in (x.shape, y.shape):
            x = x.each(lambda part: np.broadcast_to(part, shape))
        whole, factor = (x, y) if x.shape == shape else (y, x)
        lengthened = (1,) * (len(shape) - len(factor.shape)) + factor.shape
        factor = factor.each(lambda part: part.reshape(lengthened))
        material = self._draw(SpreadProduct(whole.shape, factor.shape))
        return _value(multiply_spread(self._party, _shared(whole), _shared(factor), material, label))

    def matrix_multiply(self, x: Value, y: Value) -> Value:
        material = self._draw(MatrixProduct(x.shape[0], x.shape[1], y.shape[1]))
        return _value(matrix_multiply(self._party, _shared(x), _shared(y), material, self.label("matmul")))

    def bilinear(self, map_: LinearMap, x: Value, w: Value) -> Value:
        material = self._draw(Bilinear(map_, x.shape, w.shape))
        return _value(bilinear(self._party, _shared(x), _shared(w), material, self.label("bilinear")))

    def truncate(self, x: Value, shift: int) -> Value:
        return _value(truncate(self._party, _shared(x), self._draw(Truncation(x.size, shift)), self.label("truncate")))

    def relu(self, x: Value, shift: int) -> Value:
        material = self._draw(Relu(x.size, shift, self._layout))
        return _value(relu(self._party, _shared(x), material, self.label("relu")))

    def nonnegative(self, x: Value, shift: int) -> Value:
        material = self._draw(Sign(x.size, shift, self._layout))
        return _value(sign(self._party, _shared(x), material, self.label("sign")))

    def reveal(self, x: Value, to: int | None) -> Elements | None:
        label, mine = self.label("reveal"), x.parts[0]
        self.declared += Cost(x.size * self.ring.element_bytes, 1)
        # Who learns sends zeros, so that both sides count the same.
        sent = np.zeros_like(mine) if to == self.number else mine
        theirs = self._party.link.exchange(np.ascontiguousarray(sent), label)
        if to not in (None, self.number):
            return None
        return self.ring.wrap(mine + theirs.reshape(mine.shape))

    def curve(self, name: str, x: Value) -> Value:
        if name not in CURVES:
            raise unknown_name("function", name, CURVES)
        demands, run = CURVES[name](self.ring, x.shape, self._layout)
        materials = [self._draw(demand) for demand in demands]
        return _value(run(self._party, _shared(x), materials, self.label(name)))

    def _draw(self, demand: Demand) -> Material:
        self.declared += demand.cost(self.ring)
        return self._source.draw(demand)


@final
class Asked:
    """Both parties' sources of a simulation: material is dealt when the first of them asks for it, and recorded."""

    def __init__(self, dealer: Dealer) -> None:
        """Deal as `dealer`."""
        self.demands: list[Demand] = []
        self.offline_bytes = 0
        self._dealer, self._lock = dealer, threading.Lock()
        self._supplies = [Supply(dealer.ring, number, seed) for number, seed in enumerate(dealer.seeds)]

    def sources(self) -> Sequence[Source]:
        """Return the source of each party."""
        return [_AskedSource(self, number) for number in (0, 1)]

    def draw(self, number: int, demand: Demand) -> Material:
        """Return party `number`'s material. Raises: `SupplyError` where the parties ask for different things."""
        with self._lock:
            if not len(self._supplies[number]):
                self.demands.append(demand)
                for supply, entry in zip(self._supplies, self._dealer.deal(demand), strict=True):
                    supply.add(entry)
                    self.offline_bytes += len(entry.corrections)
            return self._supplies[number].draw(demand)


@final
class _AskedSource:
    def __init__(self, asked: Asked, number: int) -> None:
        self._asked, self._number = asked, number

    def draw(self, demand: Demand) -> Material:
        return self._asked.draw(self._number, demand)


def _shared(x: Value) -> Shared:
    return Shared(x.parts[0], x.fraction)


def _value(x: Shared) -> Value:
    return Value((x.elements,), x.fraction)
