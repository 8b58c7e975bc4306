"""The links of three parties in a ring: each sends to its left neighbour and receives from its right one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np

from edgeward.backends.mpc.rehearsal import Message
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.pair import consequence, local_pair

T = TypeVar("T")


@runtime_checkable
class Neighbours(Protocol):
    """The two links of a party; `ChannelNeighbours` is one."""

    def send(self, array: np.ndarray, label: str) -> None:
        """Send to the left neighbour without waiting for it."""

    def receive(self, shape: tuple[int, ...], dtype: np.dtype, label: str) -> np.ndarray:
        """Return what the right neighbour sends as step `label`."""


@final
class ChannelNeighbours:
    """Two channels of one party that count into one meter; `received` keeps what came, if wanted (tests)."""

    def __init__(self, left: Channel, right: Channel, received: list[Message] | None = None) -> None:
        """Join the channel to the left neighbour and the one to the right neighbour."""
        self._left, self._right, self.received = left, right, received

    @property
    def meter(self) -> Meter:
        """Return the meter of both channels."""
        return self._left.meter

    def send(self, array: np.ndarray, label: str) -> None:
        """Send to the left neighbour. Raises: `ChannelError`."""
        self._left.send(array, label)

    def receive(self, shape: tuple[int, ...], dtype: np.dtype, label: str) -> np.ndarray:
        """Return what the right neighbour sends. Raises: `ChannelError`."""
        came = self._right.receive(shape, dtype, label)
        if self.received is not None:
            self.received.append(Message(label, came))
        return came


def run_three(
    program: Callable[[int, ChannelNeighbours], T],
    *,
    network: Network | None = None,
    timeout: float = 60.0,
    keep: bool = False,
) -> tuple[T, T, T]:
    """Run `program(number, neighbours)` as three parties on three threads, joined by sockets in this process.

    Guarantee: none; one process holds all secrets. The bytes are those of a deployment without its TLS. If one party
    fails the others are stopped, and the failure that came first in cause is raised. `network` throttles every link,
    `keep` keeps what each party received.
    """
    meters = [Meter() for _ in range(3)]
    links = []
    for number in range(3):
        there = (number - 1) % 3
        ends = (meters[number], meters[there])
        links.append(local_pair(network, timeout=timeout, numbers=(number, there), meters=ends))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    done = threading.Barrier(3)

    def play(number: int) -> None:
        ours = (links[number][0], links[(number + 1) % 3][1])
        try:
            results[number] = program(number, ChannelNeighbours(*ours, [] if keep else None))
            # Nobody closes before all have what they wait for.
            done.wait()
        except threading.BrokenBarrierError:
            _leave(Channel.abort, ours)
        except BaseException as error:
            errors.append(error)
            done.abort()
            _leave(Channel.abort, ours)
        else:
            _leave(Channel.close, ours)

    threads = [threading.Thread(target=play, args=(n,), name=f"edgeward-party-{n}", daemon=True) for n in (1, 2)]
    for thread in threads:
        thread.start()
    play(0)
    for thread in threads:
        thread.join()
    if errors:
        raise min(errors, key=consequence)
    return results[0], results[1], results[2]


def _leave(way: Callable[[Channel], None], channels: tuple[Channel, Channel]) -> None:
    """Close both at once: each waits a moment for its other end, which may be waiting for another."""

    def leave(channel: Channel) -> None:
        with contextlib.suppress(ChannelError):
            way(channel)

    other = threading.Thread(target=leave, args=(channels[0],), daemon=True)
    other.start()
    leave(channels[1])
    other.join()
