"""`TupleSource`: where a party's one-time material comes from, batch by batch."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.sealing import StoreError
from edgeward.backends.mpc.offline.tuples import Entry, Supply, correction_bytes
from edgeward.backends.mpc.ring import Ring
from edgeward.core.randomness import SecretBytes


class TupleSource(ABC):
    """Gives out batches of material in rising order, each once; both parties take the batch of the same index.

    Two sources are here: `StreamedTuples`, a dealer over a channel, and `StoredTuples`, what a dealer left on disk.
    A dealer inside a trusted execution environment is a third: the same messages, from a process whose evidence the
    party checks before it names its plan; then the dealer's operator need not be trusted.
    Triples without a dealer are a fourth: both parties make a batch together, by homomorphic encryption or oblivious
    transfer, and `next_index` waits for that; then nobody is trusted, at many times the bytes.
    """

    @abstractmethod
    def next_index(self, timeout: float) -> int:
        """Wait for a batch and return the lowest index there is.

        Raises: `SupplyError`, `ChannelError`, `StoreError`.
        """

    @abstractmethod
    def take(self, index: int, timeout: float) -> Supply:
        """Return the material of batch `index`, which is nowhere else from now on.

        Raises: `SupplyError`, `ChannelError`, `StoreError`.
        """

    @abstractmethod
    def close(self) -> None:
        """Take no more; never raises."""


def supply_of(ring: Ring, number: int, demands: Sequence[Demand], records: Iterator[bytes]) -> Supply:
    """Return the supply of one batch from its records: the seed, then the corrections of each demand that has some.

    Records are taken when they are needed. Raises: `StoreError` where they end too soon.
    """
    left = iter(enumerate(demands))

    def refill() -> bool:
        item = next(left, None)
        if item is None:
            return False
        place, demand = item
        corrections = _next(records) if correction_bytes(demand, ring, number) else b""
        if (owner := weak()) is not None:
            owner.add(Entry(place, demand, corrections))
        return True

    supply = Supply(ring, number, SecretBytes(_next(records)), refill)
    # No cycle, so that a file is closed as soon as the supply of its batch is gone.
    weak = weakref.ref(supply)
    return supply


def _next(records: Iterator[bytes]) -> bytes:
    record = next(records, None)
    if record is None:
        raise StoreError("a batch of material is cut short", came="the end", fix="deal anew")
    return record
