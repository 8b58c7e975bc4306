"""One step of a secure network: which material it asks for, what the parties do, what it means in the clear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear import MaskedWeights
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator

Masks = Iterator["np.ndarray | None"]
"""For every demand in order, the dealer's mask, or None where truncation shall round down."""


@final
@dataclass(frozen=True)
class Secret:
    """Public description of a tensor that only the model's owner knows: name, shape, fraction bits.

    `masked` secrets are factors, opened once under a mask; the others are added to shares and never opened.
    """

    name: str
    shape: Shape
    fraction: int
    masked: bool


@final
@dataclass(frozen=True, eq=False, repr=False)
class Held:
    """What a party holds of the model: masked weights and shares of the other secrets, by name."""

    weights: Mapping[str, MaskedWeights]
    added: Mapping[str, Shared]


@dataclass(frozen=True)
class Step(ABC):
    """A step reads `inputs`, writes `outputs`; `label` is unique in its plan, `layer` and `operator` are the graph's.

    Values in the clear are kept as `Shared` too: they are the one share of a party that is alone.
    """

    label: str
    layer: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def secrets(self) -> tuple[Secret, ...]:
        """Return the model's tensors that this step needs."""
        return ()

    def demands(self, ring: Ring) -> tuple[Demand, ...]:
        """Return the one-time material of one run, in the order of use."""
        return ()

    def prepare(self, party: Party, held: Held, materials: Sequence[Material]) -> Sequence[Material]:
        """Do the part of one run that needs no input."""
        return materials

    @abstractmethod
    def run(
        self, party: Party, values: Sequence[Shared], held: Held, materials: Sequence[Material]
    ) -> tuple[Shared, ...]:
        """Return this party's shares of the outputs."""

    @abstractmethod
    def clear(
        self, simulator: Simulator, values: Sequence[Shared], model: Mapping[str, Elements], masks: Masks
    ) -> tuple[Shared, ...]:
        """Return the outputs as one trusted computer would compute them with the encoded `model`."""


def lift(ring: Ring, x: Shared, fraction: int) -> Shared:
    """Return shares of the same number with at least `fraction` fraction bits, without communication."""
    if x.fraction >= fraction:
        return x
    return Shared(ring.wrap(x.elements * ring.constant(1 << (fraction - x.fraction))), fraction)
