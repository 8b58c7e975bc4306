"""Both parties in one process: a rehearsal, for tests and for counting, never a deployment."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final

import numpy as np

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, Supply
from edgeward.backends.mpc.party import Party, ProtocolError
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.transport.meter import Meter, Reading

T = TypeVar("T")
Program = Callable[[Party, Supply], T]
_SECONDS = 60.0


@final
@dataclass(frozen=True, eq=False)
class Message:
    """One array that a party received, with its label: a piece of its view of the protocol."""

    label: str
    array: np.ndarray

    def __repr__(self) -> str:
        """Return label and size, never the content."""
        return f"Message({self.label!r}, {self.array.nbytes} bytes)"


@final
class MemoryLink:
    """One end of a link between two threads; counts like a channel and keeps what came in `received`."""

    def __init__(self, inbox: queue.Queue[Any], outbox: queue.Queue[Any]) -> None:
        """Join two queues."""
        self._inbox, self._outbox = inbox, outbox
        self.meter, self.received = Meter(), list[Message]()

    def exchange(self, array: np.ndarray, label: str) -> np.ndarray:
        """Send `array`, return the other party's of this step: one round. Raises: `ProtocolError`."""
        return self.exchange_all([array], [label])[0]

    def exchange_all(self, arrays: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
        """Send all arrays, then return the other party's: one round. Raises: `ProtocolError`."""
        for array, label in zip(arrays, labels, strict=True):
            self._outbox.put((label, array.copy(), self.meter.note_sent(label, array.nbytes)))
        return [self._take(label) for label in labels]

    def _take(self, label: str) -> np.ndarray:
        try:
            came = self._inbox.get(timeout=_SECONDS)
        except queue.Empty:
            came = None
        if came is None or came[0] != label:
            what = "its end" if came is None else came[0]
            raise ProtocolError("the other party is at another place of the protocol", expected=label, came=what)
        self.meter.note_received(label, came[1].nbytes, came[2])
        self.received.append(Message(label, came[1]))
        return np.array(came[1])

    def close(self) -> None:
        """Tell the other party that nothing more comes."""
        self._outbox.put(None)


@final
@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a rehearsal gave: both parties' results, meters, and what each received. A simulation: no secrecy."""

    results: tuple[T, T]
    meters: tuple[Reading, Reading]
    received: tuple[list[Message], list[Message]] = field(repr=False)


def rehearse(ring: Ring, demands: Sequence[Demand], program: Program[T]) -> Outcome[T]:
    """Deal `demands`, run `program` as both parties on two threads, and return what came out.

    Guarantee: none about secrecy, since dealer and both parties share this process's memory; bytes and rounds are those
    of a deployment. Raises: what the first failing party raised.
    """
    supplies = Dealer(ring).supplies(demands)
    return run_two(ring, lambda party: program(party, supplies[party.number]))


def run_two(ring: Ring, program: Callable[[Party], T]) -> Outcome[T]:
    """Run `program` as both parties on two threads, joined by a link in memory."""
    queues: tuple[queue.Queue[Any], queue.Queue[Any]] = (queue.Queue(), queue.Queue())
    links = (MemoryLink(queues[0], queues[1]), MemoryLink(queues[1], queues[0]))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def play(number: int) -> None:
        try:
            results[number] = program(Party(number, ring, links[number]))
        except BaseException as error:
            errors.append(error)
        finally:
            links[number].close()

    threads = [threading.Thread(target=play, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    meters = (links[0].meter.reading(), links[1].meter.reading())
    return Outcome((results[0], results[1]), meters, (links[0].received, links[1].received))
