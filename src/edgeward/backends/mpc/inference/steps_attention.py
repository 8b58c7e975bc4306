"""Steps of attention: products of two secret values' matrices, and tensors of the model that stand for themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.step import Held, Masks, Secret, Step
from edgeward.backends.mpc.inference.steps_local import LocalStep
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.matrices import (
    MatrixProduct,
    matrix_multiply,
    prepare_product,
    stacked_product,
)
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator


@final
@dataclass(frozen=True)
class MatrixStep(Step):
    """x y, or x y^T if `turned`, over the last two axes of values of shapes `left` and `right`, times factor 2^-places.

    The result has the fraction bits of both and `places` more; leading axes are equal.
    """

    left: Shape
    right: Shape
    turned: bool = False
    factor: int = 1
    places: int = 0

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        (m, k), (p, q) = self.left[-2:], self.right[-2:]
        return (MatrixProduct(m, k, p if self.turned else q, math.prod(self.left[:-2])),)

    def prepare(self, party: Party, held: Held, materials: Sequence[Material]) -> Sequence[Material]:
        return [prepare_product(party, materials[0])]

    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        x, y = self.stacks(values)
        return (self.scaled(party.ring, matrix_multiply(party, x, y, materials[0], self.label)),)

    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        next(masks)
        x, y = self.stacks(values)
        product = stacked_product(simulator.ring, x.elements, y.elements)
        return (self.scaled(simulator.ring, Shared(product, x.fraction + y.fraction)),)

    def stacks(self, values: Sequence[Shared]) -> tuple[Shared, Shared]:
        """Return both factors as stacks [count, rows, columns], the right one turned where the step says so; local."""
        x, y = (
            Shared(value.elements.reshape(-1, *shape[-2:]), value.fraction)
            for value, shape in zip((values[0], values[-1]), (self.left, self.right), strict=True)
        )
        return x, Shared(np.ascontiguousarray(y.elements.swapaxes(1, 2)), y.fraction) if self.turned else y

    def scaled(self, ring: Ring, z: Shared) -> Shared:
        """Return the product of the stacks times the step's factor, in the result's shape; local."""
        shape = (*self.left[:-1], z.shape[-1])
        elements = ring.wrap(z.elements * ring.constant(self.factor)).reshape(shape)
        return Shared(elements, z.fraction + self.places)


@final
@dataclass(frozen=True)
class SecretValueStep(LocalStep):
    """A tensor of the model (a class token), repeated for every record: `shape` has the batch first."""

    secret: Secret
    shape: Shape

    def secrets(self) -> tuple[Secret, ...]:
        return (self.secret,)

    def apply(self, ring: Ring, values: Sequence[Shared], added: Mapping[str, Shared], first: bool) -> Shared:
        repeated = np.broadcast_to(added[self.secret.name].elements.reshape(1, *self.shape[1:]), self.shape)
        return Shared(np.ascontiguousarray(repeated), self.secret.fraction)
