"""Steps of curved activations, softmax and standardised rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.step import Held, Masks, Step
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.curved import Curved, curved
from edgeward.backends.mpc.protocols.presets import SHAPES, tailed
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.protocols.standardize import VARIANCE_LIMIT, Standardization, standardize
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.simulator_math import clear_curved, clear_softmax, clear_standardize


@dataclass(frozen=True)
class RangedStep(Step):
    """A step that is wrong without notice on values outside its range."""

    @abstractmethod
    def filled(self, ring: Ring, values: Sequence[Shared]) -> float:
        """Return the largest size in `values`, in the clear, over the size allowed."""


@final
@dataclass(frozen=True)
class CurveStep(RangedStep):
    """The activation called `activation` of `count` values with `shift` fraction bits less."""

    count: int
    shift: int
    layout: Layout
    activation: str

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (self._demand(ring),)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (curved(party, values[0], materials[0], self.label),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        demand, x = self._demand(simulator.ring), values[0]
        return (Shared(clear_curved(simulator, demand, x.elements, next(masks)), x.fraction - self.shift),)

    def filled(self, ring: Ring, values: Sequence[Shared]) -> float:
        allowed = 2.0 ** (self.layout.width - 1 - ring.fraction) - SHAPES[self.activation].bound
        if self.shift:
            allowed = min(allowed, 2.0 ** (ring.bits - 2 - values[0].fraction))
        return _size(ring, values[0]) / allowed

    def _demand(self, ring: Ring) -> Curved:
        return Curved(self.count, self.shift, tailed(self.activation, ring), self.layout)


@dataclass(frozen=True)
class RowStep(RangedStep):
    """A function of rows of `columns` values; the result has more fraction bits than the ring."""

    rows: int
    columns: int

    @abstractmethod
    def what(self, ring: Ring) -> Softmax | Standardization:
        """Return what is computed."""

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return self.what(ring).demands(ring)

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        x, what = _rows(values[0], self.rows), self.what(party.ring)
        if isinstance(what, Softmax):
            return (_like(values[0], softmax(party, x, what, materials, self.label)),)
        return (_like(values[0], standardize(party, x, what, materials, self.label)),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        x, what = _rows(values[0], self.rows).elements, self.what(simulator.ring)
        if isinstance(what, Softmax):
            result = clear_softmax(simulator, what, x, masks)
        else:
            result = clear_standardize(simulator, what, x, masks)
        return (_like(values[0], Shared(result, what.result_fraction)),)


@final
@dataclass(frozen=True)
class SoftmaxStep(RowStep):
    """Softmax over the last axis of values with `shift` fraction bits less."""

    shift: int
    layout: Layout

    def filled(self, ring: Ring, values: Sequence[Shared]) -> float:
        x, what = ring.decode(values[0].elements, values[0].fraction), self.what(ring)
        return max(float(x.max(initial=0)) / what.largest, float(-x.min(initial=0)) / what.lowest)

    def what(self, ring: Ring) -> Softmax:
        return Softmax(self.rows, self.columns, self.shift, ring.fraction, self.layout)


@final
@dataclass(frozen=True)
class StandardizeStep(RowStep):
    """Rows less their mean over their deviation."""

    epsilon: float
    layout: Layout

    def filled(self, ring: Ring, values: Sequence[Shared]) -> float:
        x = _rows(values[0], self.rows)
        return float(ring.decode(x.elements, x.fraction).var(axis=1).max(initial=0)) / VARIANCE_LIMIT

    def what(self, ring: Ring) -> Standardization:
        return Standardization(self.rows, self.columns, ring.fraction, self.epsilon, self.layout)


def _rows(x: Shared, rows: int) -> Shared:
    return Shared(x.elements.reshape(rows, -1), x.fraction)


def _like(x: Shared, result: Shared) -> Shared:
    return Shared(result.elements.reshape(x.shape), result.fraction)


def _size(ring: Ring, x: Shared) -> float:
    return float(np.abs(ring.decode(x.elements, x.fraction)).max(initial=0))
