"""What a party sends, receives and waits for, counted per step."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import final

from edgeward.backends.mpc.transport.frames import wire_bytes


@final
@dataclass(frozen=True)
class Traffic:
    """Counts of one label at one party: payload bytes, messages, and the rounds that began with it."""

    sent: int = 0
    received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    rounds: int = 0
    wire_sent: int = 0
    wire_received: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Return the sums."""
        return Traffic(*(a + b for a, b in zip(_figures(self), _figures(other), strict=True)))

    def __sub__(self, other: Traffic) -> Traffic:
        """Return what came on top of `other`."""
        return Traffic(*(a - b for a, b in zip(_figures(self), _figures(other), strict=True)))


@final
@dataclass(frozen=True)
class Reading:
    """A meter at one moment; readings subtract, so that a span can be measured."""

    traffic: Mapping[str, Traffic]

    @property
    def total(self) -> Traffic:
        """Return the sum over all labels."""
        return sum(self.traffic.values(), Traffic())

    @property
    def sent(self) -> int:
        """Return all payload bytes sent."""
        return self.total.sent

    @property
    def received(self) -> int:
        """Return all payload bytes received."""
        return self.total.received

    @property
    def rounds(self) -> int:
        """Return the length of the longest chain of messages that had to wait for each other."""
        return self.total.rounds

    def __sub__(self, earlier: Reading) -> Reading:
        """Return the traffic between two readings; labels without any are left out."""
        spans = {k: v - earlier.traffic.get(k, Traffic()) for k, v in self.traffic.items()}
        return Reading(MappingProxyType({k: v for k, v in spans.items() if v != Traffic()}))


@final
class Meter:
    """Counts payload bytes, bytes with frame headers, messages and rounds, per label.

    Exact for what edgeward writes to its stream of frames. Not counted: the greeting of 44 bytes, notices of the end,
    TLS (22 bytes per record of at most 16 KiB, and its handshake), TCP and IP.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._deepest, self._deepest_sent, self._deepest_received = 0, 0, 0

    @property
    def deepest_sent(self) -> int:
        """Return the depth of the deepest message sent."""
        return self._deepest_sent

    def note_sent(self, label: str, payload: int) -> int:
        """Count a message that is sent now and return its depth."""
        with self._lock:
            depth = self._deepest_received + 1
            self._deepest_sent = max(self._deepest_sent, depth)
            counts = self._of(label, depth)
            counts[0] += payload
            counts[2] += 1
            counts[5] += wire_bytes(payload)
            return depth

    def note_received(self, label: str, payload: int, depth: int) -> None:
        """Count a message that came whole, with the depth it carried."""
        with self._lock:
            self._deepest_received = max(self._deepest_received, depth)
            counts = self._of(label, depth)
            counts[1] += payload
            counts[3] += 1
            counts[6] += wire_bytes(payload)

    def begin_rounds(self) -> None:
        """Count rounds from here on as if nothing had been sent or received yet; what was counted stays.

        For a party with several channels, at a moment when all that was sent to it has been received, and only if the
        others do the same.
        """
        with self._lock:
            self._deepest, self._deepest_sent, self._deepest_received = 0, 0, 0

    def reading(self) -> Reading:
        """Return the counts of this moment."""
        with self._lock:
            return Reading(MappingProxyType({label: Traffic(*counts) for label, counts in self._counts.items()}))

    def _of(self, label: str, depth: int) -> list[int]:
        """Return the counts of a label, in the order of `Traffic`, with the rounds that begin at `depth`."""
        counts = self._counts.setdefault(label, [0] * len(_FIELDS))
        counts[4] += max(0, depth - self._deepest)
        self._deepest = max(self._deepest, depth)
        return counts


def _figures(traffic: Traffic) -> tuple[int, ...]:
    return tuple(vars(traffic).values())


_FIELDS = fields(Traffic)
