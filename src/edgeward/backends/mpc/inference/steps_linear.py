"""Steps that multiply by the model's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.inference.step import Held, Masks, Secret, Step
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear import Linear, Use, linear, prepare
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator


@final
@dataclass(frozen=True)
class Gain(LinearMap):
    """x [n, ...] times w that broadcasts over x: a gain per channel, or per element."""

    def output_shape(self, x: Shape, w: Shape) -> Shape:
        return x

    def apply(self, ring: Ring, x: Elements, w: Elements) -> Elements:
        return ring.wrap(x * w)


@final
@dataclass(frozen=True)
class LinearStep(Step):
    """Layers that read one value: it is opened once, under one mask, for all of them.

    `input` is the shape in which the layers see the value, `input_fraction` its fraction bits; `shapes` are those of
    the outputs, batch first.
    """

    input: Shape
    uses: tuple[Use, ...]
    biased: tuple[bool, ...]
    shapes: tuple[Shape, ...]
    weight_fraction: int
    input_fraction: int

    def secrets(self) -> tuple[Secret, ...]:
        weights = [Secret(use.name, use.weights, self.weight_fraction, True) for use in self.uses]
        fraction = self.input_fraction + self.weight_fraction
        biases = [
            Secret(bias_name(use), (use.map.output_shape(self.input, use.weights)[1],), fraction, False)
            for use, biased in zip(self.uses, self.biased, strict=True)
            if biased
        ]
        return (*weights, *biases)

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        return (Linear(self.input, self.uses),)

    def prepare(self, party: Party, held: Held, materials: Sequence[Material]) -> Sequence[Material]:
        return [prepare(party.ring, [held.weights[use.name] for use in self.uses], materials[0])]

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        x = Shared(values[0].elements.reshape(self.input), values[0].fraction)
        weights = [held.weights[use.name] for use in self.uses]
        biases = [held.added.get(bias_name(use)) for use in self.uses]
        results = linear(party, x, weights, materials[0], biases, self.label)
        return self._shaped(results)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        next(masks)
        x, fraction = values[0].elements.reshape(self.input), values[0].fraction + self.weight_fraction
        results = [simulator.linear(use.map, x, model[use.name], model.get(bias_name(use))) for use in self.uses]
        return self._shaped([Shared(z, fraction) for z in results])

    def _shaped(self, results: Sequence[Shared]) -> tuple[Shared, ...]:
        pairs = zip(results, self.shapes, strict=True)
        return tuple(Shared(z.elements.reshape(shape), z.fraction) for z, shape in pairs)


def bias_name(use: Use) -> str:
    """Return the name of the bias of a layer."""
    return f"{use.name}/bias"
