"""What a protocol declares to send: bytes and rounds of one party."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Cost:
    """Bytes that one party sends (the other sends as many) and rounds in which both send at once.

    Payload only: frame headers and TLS records are the channel's. Declared costs equal what the meter counts.

    >>> Cost(8, 1) + Cost(4, 2)
    Cost(bytes=12, rounds=3)
    """

    bytes: int = 0
    rounds: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one after the other."""
        return Cost(self.bytes + other.bytes, self.rounds + other.rounds)
