"""A task of `mpc_task` as our protocols compute it: what is dealt, what is prepared, what is timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from benchmarks.mpc_task import FRACTION
from edgeward.backends.mpc.inference.lowering import Lowered
from edgeward.backends.mpc.inference.session import Request, Session
from edgeward.backends.mpc.interleaving import interleave
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Material, Supply
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.linear import Linear, MaskedWeights, Use, WeightMask, linear, mask_weights, prepare
from edgeward.backends.mpc.protocols.linear_map import Dense
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply, prepare_product
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, share

RING = Ring(64, FRACTION)


def shares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both parties' shares of real numbers."""
    first, second = share(RING, RING.encode(x))
    return first.elements, second.elements


class Play(ABC):
    """One side of a computation, to be run again and again on fresh material; its result stays shared unless a network.

    `answer` opens it afterwards, which is neither timed nor counted.
    """

    ring: Ring = RING
    slices: int = 1

    def setup(self) -> Sequence[Demand]:
        """Return the material that is dealt once."""
        return ()

    @abstractmethod
    def demands(self) -> Sequence[Demand]:
        """Return the material of one run."""

    def begin(self, party: Party, supply: Supply) -> Any:
        """Do once what comes before all runs."""
        return party

    def prepare(self, state: Any, supply: Supply) -> Any:
        """Do what needs no input."""
        return [supply.draw(demand) for demand in self.demands()]

    @abstractmethod
    def run(self, state: Any, ready: Any) -> Any:
        """Do the timed part."""

    def answer(self, state: Any, result: Any) -> np.ndarray | None:
        """Return what came out, where this party may know it."""
        return RING.decode(state.reveal(result), result.fraction)


@final
@dataclass(frozen=True, eq=False)
class ReluPlay(Play):
    """A rectifier on shared numbers."""

    shares: tuple[np.ndarray, np.ndarray] = field(repr=False)
    layout: Layout = STANDARD

    def demands(self) -> Sequence[Demand]:
        return (Relu(self.shares[0].size, 0, self.layout),)

    def run(self, state: Party, ready: list[Material]) -> Shared:
        return relu(state, Shared(self.shares[state.number], FRACTION), ready[0])


@final
@dataclass(frozen=True, eq=False)
class MatmulPlay(Play):
    """A product of two shared matrices, with the truncation that brings it back to the inputs' format, or without."""

    x: tuple[np.ndarray, np.ndarray] = field(repr=False)
    y: tuple[np.ndarray, np.ndarray] = field(repr=False)
    truncated: bool = True

    def demands(self) -> Sequence[Demand]:
        (m, k), n = self.x[0].shape, self.y[0].shape[1]
        product = MatrixProduct(m, k, n)
        return (product, Truncation(m * n, FRACTION)) if self.truncated else (product,)

    def prepare(self, state: Party, supply: Supply) -> list[Material]:
        return [prepare_product(state, *(supply.draw(demand) for demand in self.demands()))]

    def run(self, state: Party, ready: list[Material]) -> Shared:
        x, y = (Shared(pair[state.number], FRACTION) for pair in (self.x, self.y))
        return matrix_multiply(state, x, y, ready[0])


@final
@dataclass(frozen=True, eq=False)
class FixedMatmulPlay(Play):
    """A product of two shared matrices, truncated, of which the second stays the same over the runs, as weights do."""

    x: tuple[np.ndarray, np.ndarray] = field(repr=False)
    y: tuple[np.ndarray, np.ndarray] = field(repr=False)

    def setup(self) -> Sequence[Demand]:
        return (WeightMask("y", self.y[0].T.shape),)

    def demands(self) -> Sequence[Demand]:
        rows, weights = self.x[0].shape, self.y[0].T.shape
        use = Use("y", Dense(), weights)
        return (Linear(rows, (use,)), Truncation(rows[0] * weights[0], FRACTION))

    def begin(self, party: Party, supply: Supply) -> tuple[Party, MaskedWeights]:
        own = Shared(np.ascontiguousarray(self.y[party.number].T), FRACTION)
        return party, mask_weights(party, own, supply.draw(self.setup()[0]))

    def prepare(self, state: tuple[Party, MaskedWeights], supply: Supply) -> list[Material]:
        product, truncation = (supply.draw(demand) for demand in self.demands())
        return [prepare(RING, [state[1]], product), truncation]

    def run(self, state: tuple[Party, MaskedWeights], ready: list[Material]) -> Shared:
        party, held = state
        (z,) = linear(party, Shared(self.x[party.number], FRACTION), [held], ready[0])
        return truncate(party, z, ready[1])

    def answer(self, state: tuple[Party, MaskedWeights], result: Shared) -> np.ndarray | None:
        return RING.decode(state[0].reveal(result), result.fraction)


@final
@dataclass(frozen=True, eq=False)
class ExchangePlay(Play):
    """Messages of these sizes and nothing else: what the channel takes of a computation's time."""

    sizes: tuple[int, ...]

    def demands(self) -> Sequence[Demand]:
        return ()

    def prepare(self, state: Party, supply: Supply) -> list[np.ndarray]:
        return [np.zeros(size, np.uint8) for size in self.sizes]

    def run(self, state: Party, ready: list[np.ndarray]) -> None:
        for message in ready:
            state.link.exchange(message, "message")

    def answer(self, state: Party, result: None) -> None:
        return None


@final
@dataclass(frozen=True, eq=False)
class NetworkPlay(Play):
    """A lowered network: from the records' owner's clear records to the clear answer."""

    lowered: Lowered
    records: np.ndarray = field(repr=False)
    slices: int = 1

    def setup(self) -> Sequence[Demand]:
        return self.lowered.plan.setup

    def demands(self) -> Sequence[Demand]:
        return self.lowered.plan.demands

    def begin(self, party: Party, supply: Supply) -> tuple[Session, np.ndarray | None]:
        model = None if party.first else self.lowered.model
        return Session(party, self.lowered.plan, supply, model), self.records if party.first else None

    def prepare(self, state: tuple[Session, Any], supply: Supply) -> Any:
        return state[0].prepare()

    def run(self, state: tuple[Session, Any], ready: Any) -> np.ndarray | None:
        return state[0].run(ready, state[1])

    def answer(self, state: tuple[Session, Any], result: np.ndarray | None) -> np.ndarray | None:
        return result


@final
@dataclass(frozen=True, eq=False)
class BatchesPlay(Play):
    """Several batches through one network: one after the other, or taking turns on the channel."""

    lowered: Lowered
    batches: tuple[np.ndarray, ...] = field(repr=False)
    together: bool

    def setup(self) -> Sequence[Demand]:
        return self.lowered.plan.setup

    def demands(self) -> Sequence[Demand]:
        return self.lowered.plan.demands * len(self.batches)

    def begin(self, party: Party, supply: Supply) -> tuple[Party, Session]:
        model = None if party.first else self.lowered.model
        return party, Session(party, self.lowered.plan, supply, model)

    def prepare(self, state: tuple[Party, Session], supply: Supply) -> list[Request]:
        return [state[1].prepare() for _ in self.batches]

    def run(self, state: tuple[Party, Session], ready: list[Request]) -> list[np.ndarray | None]:
        party, first = state
        pairs = [(r, b if party.first else None) for r, b in zip(ready, self.batches, strict=True)]
        if not self.together:
            return [first.run(*pair) for pair in pairs]
        model = None if party.first else self.lowered.model

        def on_lane(request: Request, records: np.ndarray | None) -> Any:
            return lambda link: Session(
                Party(party.number, party.ring, link), self.lowered.plan, None, model, held=first.held
            ).run(request, records)

        return interleave(party.link, [on_lane(*pair) for pair in pairs])

    def answer(self, state: tuple[Party, Session], result: list[np.ndarray | None]) -> np.ndarray | None:
        return np.stack(result) if state[0].first else None
