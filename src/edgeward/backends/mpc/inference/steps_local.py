"""Steps that every party does on its shares alone: sums, public factors, means, and moving elements about."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from edgeward.backends.mpc.inference.step import Held, Masks, Secret, Step, lift
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.pooling import adaptive_sum, reciprocals, scaled_sum
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator


@dataclass(frozen=True)
class LocalStep(Step):
    """A step without communication: linear, or a constant that the first party adds."""

    @abstractmethod
    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        """Return the share of the output."""

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        return (self.apply(party.ring, values, held.added, party.first),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        added = {secret.name: Shared(model[secret.name], secret.fraction) for secret in self.secrets()}
        return (self.apply(simulator.ring, values, added, True),)


@final
@dataclass(frozen=True)
class SumStep(LocalStep):
    """a + b or a - b; the one with fewer fraction bits is brought to those of the other."""

    minus: bool = False

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        fraction = max(value.fraction for value in values)
        a, b = (lift(ring, value, fraction).elements for value in values)
        return Shared(ring.wrap(a - b if self.minus else a + b), fraction)


@final
@dataclass(frozen=True)
class SecretShiftStep(LocalStep):
    """Add a tensor of the model, which broadcasts over the value."""

    secret: Secret

    def secrets(self) -> tuple[Secret, ...]:
        return (self.secret,)

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        return Shared(ring.wrap(values[0].elements + added[self.secret.name].elements), values[0].fraction)


@final
@dataclass(frozen=True)
class PublicShiftStep(LocalStep):
    """Add a number that the program holds."""

    number: float

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        x = values[0]
        number = Ring(ring.bits, x.fraction).encode(np.array([self.number]))[0]
        return Shared(ring.wrap(x.elements + number), x.fraction) if first else x


@final
@dataclass(frozen=True)
class PublicGainStep(LocalStep):
    """Multiply by a number that the program holds; the product has the ring's fraction bits and `spare` more."""

    number: float
    spare: int = 0

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        places = ring.fraction + self.spare
        factor = Ring(ring.bits, places).encode(np.array([self.number]))[0]
        return Shared(ring.wrap(values[0].elements * factor), values[0].fraction + places)


@final
@dataclass(frozen=True)
class MeanStep(LocalStep):
    """The mean over axes (batch counted): the sum times round(2^(f + spare) / size), with f + spare more bits."""

    axes: tuple[int, ...]
    shape: Shape
    spare: int

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        x = values[0]
        size = np.array([math.prod(x.shape[axis] for axis in self.axes)])
        total = x.elements.sum(axis=self.axes, dtype=ring.dtype) * reciprocals(ring, size, self.spare)[0]
        return Shared(ring.wrap(total).reshape(self.shape), x.fraction + ring.fraction + self.spare)


@final
@dataclass(frozen=True)
class AveragePoolStep(LocalStep):
    """The mean of each window, with f + spare more fraction bits."""

    window: Window
    spare: int

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        return scaled_sum(ring, values[0], self.window, self.spare)


@final
@dataclass(frozen=True)
class AdaptivePoolStep(LocalStep):
    """The means of `output` near-equal windows a side, with f + spare more fraction bits."""

    output: tuple[int, int]
    spare: int

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        return adaptive_sum(ring, values[0], self.output, self.spare)


@final
@dataclass(frozen=True)
class MoveStep(LocalStep):
    """Move elements about as `operator` of the graph says; `settings` are its attributes in a fixed order."""

    settings: tuple[Any, ...] = ()

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        fraction = max(value.fraction for value in values)
        arrays = [lift(ring, value, fraction).elements for value in values]
        return Shared(np.ascontiguousarray(MOVES[self.operator](arrays, *self.settings)), fraction)


def _part(arrays: list[np.ndarray], axis: int, start: int, stop: int, step: int) -> np.ndarray:
    place = (*[slice(None)] * (axis + 1), slice(start, stop, step))
    return arrays[0][place]


MOVES: Mapping[str, Callable[..., np.ndarray]] = {
    "identity": lambda arrays: arrays[0],
    "reshape": lambda arrays, shape: arrays[0].reshape(len(arrays[0]), *shape),
    "permute": lambda arrays, axes: arrays[0].transpose(0, *(axis + 1 for axis in axes)),
    "slice": _part,
    "select": lambda arrays, axis, index: arrays[0].take(index, axis + 1),
    "pad": lambda arrays, padding: np.pad(arrays[0], ((0, 0), *padding)),
    "concat": lambda arrays, axis: np.concatenate(arrays, axis + 1),
}
"""What each layout operator does to batched arrays; axes in settings do not count the batch."""
