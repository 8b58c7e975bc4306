"""`Stock`: what a party has received from the dealer and not used yet, in memory or sealed on disk."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import final

from edgeward.backends.mpc.inference.step import Held
from edgeward.backends.mpc.offline.sealing import StoreError
from edgeward.backends.mpc.offline.tuples import TupleReusedError

DEAL_BYTES = 16
NO_DEAL = bytes(DEAL_BYTES)
INDICES = 10**12
"""Indices of batches are below this: files carry them in their names."""
FRESH, HELD = 1, 2
"""States of a deal: its weights were not opened yet, or they were and the party holds what came out."""


class Stock(ABC):
    """Material of one deal (a dealer's weight masks and the batches that fit them) at one party."""

    @abstractmethod
    def state(self) -> tuple[int, bytes]:
        """Return 0, `FRESH` or `HELD`, and the identity of the deal. Raises: `StoreError`."""

    @abstractmethod
    def begin(self, deal: bytes, setup: Iterable[bytes]) -> None:
        """Throw everything away and keep the records for opening the weights of a new deal. Raises: `StoreError`."""

    @abstractmethod
    def take_setup(self) -> Iterator[bytes]:
        """Return the records for opening the weights, once. Raises: `StoreError`."""

    @abstractmethod
    def hold(self, held: Held, model: bytes) -> None:
        """Keep what opening the weights gave; `model` is the digest of the owner's tensors. Raises: `StoreError`."""

    @abstractmethod
    def held(self, model: bytes) -> Held | None:
        """Return what `hold` kept, or None for another model. Raises: `StoreError`."""

    @abstractmethod
    def put(self, index: int, records: Iterable[bytes]) -> None:
        """Keep the records of a batch: whole or not at all. Raises: `StoreError`, and what `records` raises."""

    @abstractmethod
    def indices(self) -> list[int]:
        """Return the indices of the batches that wait, rising."""

    @abstractmethod
    def take(self, index: int) -> Iterator[bytes]:
        """Return the records of a batch and forget them first. Raises: `TupleReusedError`, `StoreError`."""

    def keep_only(self, indices: Collection[int]) -> None:
        """Throw away all batches but those of `indices`. Raises: `StoreError`."""
        for old in self.indices():
            if old not in indices:
                self.take(old)


@final
class MemoryStock(Stock):
    """Material in memory: gone with the process."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock, self._batches, self._setup = threading.Lock(), dict[int, list[bytes]](), list[list[bytes]]()

    def state(self) -> tuple[int, bytes]:
        return 0, NO_DEAL

    def begin(self, deal: bytes, setup: Iterable[bytes]) -> None:
        self._batches, self._setup = {}, [list(setup)]

    def take_setup(self) -> Iterator[bytes]:
        if not self._setup:
            raise StoreError("the weights were opened before", fix="deal anew")
        return _popped(self._setup.pop())

    def hold(self, held: Held, model: bytes) -> None:
        return

    def held(self, model: bytes) -> Held | None:
        return None

    def put(self, index: int, records: Iterable[bytes]) -> None:
        kept = list(records)
        with self._lock:
            self._batches[index] = kept

    def indices(self) -> list[int]:
        with self._lock:
            return sorted(self._batches)

    def take(self, index: int) -> Iterator[bytes]:
        with self._lock:
            records = self._batches.pop(index, None)
        if records is None:
            raise TupleReusedError(f"batch {index} was used before", fix="take the next one")
        return _popped(records)


def _popped(records: list[bytes]) -> Iterator[bytes]:
    """Yield records and free each when the next is asked for."""
    records.reverse()
    while records:
        yield records.pop()
