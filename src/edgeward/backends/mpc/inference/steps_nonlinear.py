"""Steps that talk: truncation, activations, the largest of a window, products of two secret values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.step import Held, Masks, Step
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.multiplication import (
    Product,
    SpreadProduct,
    Square,
    multiply,
    multiply_spread,
    square,
)
from edgeward.backends.mpc.protocols.pooling import max_pool, max_pool_demands
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator


@final
@dataclass(frozen=True)
class TruncateStep(Step):
    """Drop `shift` fraction bits of `count` values: the floor, or one unit more."""

    count: int
    shift: int

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (Truncation(self.count, self.shift),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (truncate(party, values[0], materials[0], self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        return (_truncated(simulator, values[0], self.shift, masks),)


@final
@dataclass(frozen=True)
class ReluStep(Step):
    """max(t, 0) of `count` values, t = the value with `shift` fraction bits less."""

    count: int
    shift: int
    layout: Layout

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (Relu(self.count, self.shift, self.layout),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (relu(party, values[0], materials[0], self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        t = _truncated(simulator, values[0], self.shift, masks)
        return (Shared(simulator.relu(t.elements, self.layout.width), t.fraction),)


@final
@dataclass(frozen=True)
class ClipStep(Step):
    """min(max(t, low), high) as low + relu(t - low) - relu(t - high), both in the same rounds; bounds are public."""

    count: int
    shift: int
    layout: Layout
    low: float
    high: float

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (Relu(2 * self.count, self.shift, self.layout),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        both = self._both(party.ring, values[0], party.first)
        return (self._joined(party.ring, relu(party, both, materials[0], self.label), values[0].shape, party.first),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        t = _truncated(simulator, self._both(simulator.ring, values[0], True), self.shift, masks)
        rectified = Shared(simulator.relu(t.elements, self.layout.width), t.fraction)
        return (self._joined(simulator.ring, rectified, values[0].shape, True),)

    def _both(self, ring: Ring, x: Shared, first: bool) -> Shared:
        flat = x.elements.reshape(-1)
        low, high = (Ring(ring.bits, x.fraction).encode(np.array([b]))[0] for b in (self.low, self.high))
        parts = (flat - low, flat - high) if first else (flat, flat)
        return Shared(ring.wrap(np.concatenate(parts)), x.fraction)

    def _joined(self, ring: Ring, both: Shared, shape: Shape, first: bool) -> Shared:
        above, over = both.elements[: self.count], both.elements[self.count :]
        low = Ring(ring.bits, both.fraction).encode(np.array([self.low]))[0]
        share = above - over + low if first else above - over
        return Shared(ring.wrap(share).reshape(shape), both.fraction)


@final
@dataclass(frozen=True)
class MaxPoolStep(Step):
    """The largest value of each window, in a tournament."""

    input: Shape
    window: Window
    layout: Layout

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return max_pool_demands(self.input, self.window, self.layout)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (max_pool(party, values[0], self.window, materials, self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        for _ in self.demands(simulator.ring):
            next(masks)
        windows = self.window.gather(values[0].elements, -(1 << (self.layout.width - 2)), simulator.ring)
        return (Shared(simulator.maximum(windows), values[0].fraction),)


@final
@dataclass(frozen=True)
class ProductStep(Step):
    """The elementwise product of two secret values of one shape, or the square of one."""

    count: int

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (Square(self.count) if self._squares else Product(self.count),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        if self._squares:
            return (square(party, values[0], materials[0], self.label),)
        return (multiply(party, values[0], values[1], materials[0], self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        next(masks)
        x, y = values[0], values[-1]
        return (Shared(simulator.multiply(x.elements, y.elements), x.fraction + y.fraction),)

    @property
    def _squares(self) -> bool:
        return self.inputs[0] == self.inputs[-1]


@final
@dataclass(frozen=True)
class SpreadProductStep(Step):
    """The product of a secret value of `shape` with another that broadcasts over it."""

    shape: Shape
    factor: Shape

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (SpreadProduct(self.shape, self.factor),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (multiply_spread(party, values[0], values[1], materials[0], self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        next(masks)
        x, y = values
        return (Shared(simulator.multiply(x.elements, y.elements), x.fraction + y.fraction),)


def _truncated(simulator: Simulator, z: Shared, shift: int, masks: Masks) -> Shared:
    mask = next(masks)
    mask = None if mask is None else mask.reshape(z.shape)
    return Shared(simulator.truncate(z.elements, shift, mask), z.fraction - shift)
