"""Throttled networks for experiments: a bandwidth and a delay, kept by byte accounting."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Network:
    """A link between two parties: `bits_per_second` in each direction, and the time there and back.

    A simulation on one machine: no loss, no congestion, no TCP slow start; frame headers are counted, TLS and TCP are
    not. Say "throttled" beside every number measured with it.
    """

    name: str
    bits_per_second: float
    round_trip_seconds: float

    def __post_init__(self) -> None:
        """Refuse figures that no link has."""
        if not (self.bits_per_second > 0 and 0 <= self.round_trip_seconds < float("inf")):
            came = f"{self.bits_per_second} bit/s, {self.round_trip_seconds} s"
            raise ConfigError("not a network", expected="a bandwidth above 0 and a delay from 0", came=came)

    def seconds(self, payload: int, rounds: int) -> float:
        """Return the modelled time of `payload` bytes one way and `rounds` rounds: half a round trip each.

        >>> WAN.seconds(12_500_000, 10)
        1.4
        """
        return payload * 8 / self.bits_per_second + rounds * self.round_trip_seconds / 2


LAN = Network("lan", 1e9, 0.0005)
WAN = Network("wan", 1e8, 0.08)


class Clock(ABC):
    """A source of time for throttling."""

    @abstractmethod
    def now(self) -> float:
        """Return seconds since some fixed moment."""

    @abstractmethod
    def wait_until(self, moment: float, stop: threading.Event) -> None:
        """Return at `moment`, or earlier when `stop` is set."""


@final
class WallClock(Clock):
    """The monotonic clock of this machine."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float, stop: threading.Event) -> None:
        left = moment - time.monotonic()
        if left > 0:
            stop.wait(left)


@final
class Shaper:
    """Says when bytes handed to a link leave its far end.

    The link is busy for 8 * bytes / bandwidth per frame, one frame after the other; each then takes half a round trip.
    """

    def __init__(self, network: Network) -> None:
        """Begin with an idle link."""
        self._network, self._free_at, self.bytes = network, float("-inf"), 0

    def due(self, now: float, count: int) -> float:
        """Account for `count` bytes handed over at `now`; return the moment at which the last of them arrives.

        >>> shaper = Shaper(Network("slow", 8000, 1.0))
        >>> shaper.due(0.0, 1000), shaper.due(0.5, 1000), shaper.due(10.0, 0)
        (1.5, 2.5, 10.5)
        """
        self.bytes += count
        self._free_at = max(self._free_at, now) + count * 8 / self._network.bits_per_second
        return self._free_at + self._network.round_trip_seconds / 2
