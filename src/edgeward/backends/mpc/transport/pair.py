"""Two parties on one machine: a simulation that moves the same frames as a deployment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.network import Clock, Network
from edgeward.backends.mpc.transport.stream import SocketStream

First = TypeVar("First")
Second = TypeVar("Second")

_BUFFER_BYTES = 1 << 22


def local_pair(
    network: Network | None = None,
    *,
    timeout: float = 60.0,
    clocks: tuple[Clock, Clock] | None = None,
    numbers: tuple[int, int] = (0, 1),
    meters: tuple[Meter, Meter] | None = None,
) -> tuple[Channel, Channel]:
    """Return the two ends of a channel within this process, for one thread each: of parties `numbers`, 0 and 1.

    `meters` are those of parties with several channels.

    Guarantee: none; both parties' secrets lie in one process. The bytes are those of a deployment without its TLS.
    """
    here, there = socket.socketpair()
    for end in (here, there):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    first, second = clocks or (None, None)
    mine, yours = meters or (None, None)
    return (
        Channel(SocketStream(here), party=numbers[0], timeout=timeout, network=network, clock=first, meter=mine),
        Channel(SocketStream(there), party=numbers[1], timeout=timeout, network=network, clock=second, meter=yours),
    )


def run_parties(
    first: Callable[[Channel], First],
    second: Callable[[Channel], Second],
    *,
    network: Network | None = None,
    timeout: float = 60.0,
) -> tuple[First, Second]:
    """Run two parties in two threads over a local pair and return both results.

    If one fails the other is stopped too, and the failure that came first in cause is raised: an error of a party
    before the channel errors that it made.
    """
    channels = local_pair(network, timeout=timeout)
    results: list[object] = [None, None]
    errors: list[BaseException] = []

    def run(party: int, program: Callable[[Channel], object]) -> None:
        try:
            with channels[party] as channel:
                results[party] = program(channel)
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=run, args=(1, second), name="edgeward-party-1", daemon=True)
    other.start()
    run(0, first)
    other.join()
    if errors:
        raise min(errors, key=consequence)
    return results[0], results[1]  # type: ignore[return-value]


def consequence(error: BaseException) -> int:
    """Order errors from causes to consequences."""
    if not isinstance(error, ChannelError):
        return 0
    return 2 if error.reason in (Failure.ABORTED, Failure.GONE, Failure.CLOSED, Failure.FINISHED) else 1
