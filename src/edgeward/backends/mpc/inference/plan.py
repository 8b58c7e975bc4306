"""`Plan`: a network as a public sequence of protocols, the same at both parties and at the dealer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.step import Secret, Step
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.protocols.linear import WeightMask
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.ring import Ring

RESULT = "result"
"""The label of the last step: the owner of the input learns the answer."""


@final
@dataclass(frozen=True)
class Plan:
    """Steps in order, for batches of a fixed size; `input` and `output` name values, shapes have the batch first.

    Public by design: whoever holds a plan knows the architecture, the shapes, the numbers that the program itself
    holds (not those of its tensors) and the fixed-point format, and nothing about weights or records. A value must
    keep below 2^(width-1-f) in size wherever it is compared (half of that in a maximum) and below 2^(l-2-F) where F
    fraction bits are truncated to f; outside, a result is wrong without notice. `reference.check_range` looks for that
    on sample records.
    """

    ring: Ring
    steps: tuple[Step, ...]
    input: str
    output: str
    input_shape: Shape
    output_shape: Shape

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return the tensors that the model's owner brings, in order of use."""
        return tuple(secret for step in self.steps for secret in step.secrets())

    @property
    def setup(self) -> tuple[WeightMask, ...]:
        """Return the material for opening the masked weights: dealt and used once for the life of the weights."""
        return tuple(mask for step in self.steps for mask in masks_of(step))

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Return the material for one batch, in order of use; deal it anew for every batch."""
        return tuple(demand for step in self.steps for demand in step.demands(self.ring))

    @property
    def reveal(self) -> Cost:
        """Return the cost of opening the answer to one party; the other sends as many zeros."""
        return Cost(math.prod(self.output_shape) * self.ring.element_bytes, 1)

    @property
    def digest(self) -> str:
        """Return a hash by which parties can find out that they hold the same plan."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def last_use(self) -> Iterator[tuple[Step, tuple[str, ...]]]:
        """Yield every step with the values that nobody reads after it."""
        last = {name: i for i, step in enumerate(self.steps) for name in step.inputs}
        for i, step in enumerate(self.steps):
            done = {name for name in step.inputs if last[name] == i and name != self.output}
            yield step, tuple(sorted(done))


def masks_of(step: Step) -> tuple[WeightMask, ...]:
    """Return the material for the masked weights of a step."""
    return tuple(WeightMask(secret.name, secret.shape) for secret in step.secrets() if secret.masked)
