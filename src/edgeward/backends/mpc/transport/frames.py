"""Frames: the unit of what two parties send each other, and the rules by which a foreign one is refused.

Header, little endian, 32 bytes: kind (1), last chunk of its message (1), zero (2), tag of the label (4), depth (4),
payload bytes of this frame (4), sequence number (8), payload bytes of the whole message (8). The payload follows.

A message of n bytes is cut into chunks of `CHUNK_BYTES`, the last one shorter; an empty message is one empty frame.
The depth of a message is 1 + the depth of the deepest message its sender had received, so that the largest depth is
the number of rounds: the longest chain of messages that had to wait for each other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import final

from edgeward.backends.mpc.transport.failures import ChannelError, Failure

CHUNK_BYTES = 1 << 20
LARGEST_MESSAGE = 1 << 36
_HEADER = struct.Struct("<BBHIIIQQ")
HEADER_BYTES = _HEADER.size


@final
class Kind(IntEnum):
    """What a frame is."""

    DATA = 1
    ABORT = 2
    BYE = 3
    BUSY = 4


@final
@dataclass(frozen=True)
class Header:
    """The head of one frame, as its sender claims it."""

    kind: Kind
    last: bool
    tag: int
    depth: int
    length: int
    sequence: int
    total: int

    def pack(self) -> bytes:
        """Return the 32 bytes of the wire."""
        return _HEADER.pack(self.kind, self.last, 0, self.tag, self.depth, self.length, self.sequence, self.total)


def unpack(raw: bytes | bytearray | memoryview) -> Header:
    """Return the header in foreign bytes. Raises: `ChannelError` (malformed) for all that no sender of ours makes."""
    if len(raw) != HEADER_BYTES:
        raise ChannelError(Failure.MALFORMED, expected=f"a header of {HEADER_BYTES} bytes", came=f"{len(raw)} bytes")
    kind, last, zero, tag, depth, length, sequence, total = _HEADER.unpack(raw)
    problems = []
    if kind not in tuple(Kind):
        problems.append(f"kind {kind}")
    if last > 1 or zero:
        problems.append("reserved bits")
    if total > LARGEST_MESSAGE:
        problems.append(f"a message of {total} bytes")
    if length > CHUNK_BYTES:
        problems.append(f"a chunk of {length} bytes")
    if length > total or (kind == Kind.DATA and not last and length != CHUNK_BYTES):
        problems.append(f"a chunk of {length} in a message of {total} bytes")
    if kind != Kind.DATA and (length or total or not last):
        problems.append("a notice with content")
    if problems:
        raise ChannelError(Failure.MALFORMED, expected="the header of a frame", came=", ".join(problems))
    return Header(Kind(kind), bool(last), tag, depth, length, sequence, total)


@lru_cache(maxsize=4096)
def tag(label: str) -> int:
    """Return the 32 bits by which two parties see that they are at the same step.

    >>> tag("conv1") == tag("conv1"), tag("conv1") == tag("conv2")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "little")


def chunks(total: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the chunks of a message of `total` bytes."""
    for start in range(0, max(total, 1), CHUNK_BYTES):
        yield start, min(start + CHUNK_BYTES, total)


def wire_bytes(total: int) -> int:
    """Return what a message of `total` payload bytes takes with its headers; TLS and TCP come on top.

    >>> wire_bytes(0), wire_bytes(100), wire_bytes(CHUNK_BYTES + 1) - CHUNK_BYTES
    (32, 132, 65)
    """
    return total + HEADER_BYTES * max(1, -(-total // CHUNK_BYTES))


@final
class Incoming:
    """Reads messages out of a stream of foreign bytes and holds the sender to the rules of order.

    Guarantee: a message is whole, of the expected label and length, and in sequence, or an error is raised. Memory is
    taken for what this party expects, never for what a header claims. The peer's depth is believed only up to one more
    than the deepest message it can have received from us, so it cannot inflate our count of rounds.
    """

    def __init__(self, fill: Callable[[memoryview], None]) -> None:
        """Read through `fill`, which fills a whole buffer or raises."""
        self._fill, self._sequence, self._header = fill, 0, bytearray(HEADER_BYTES)

    def message(self, into: memoryview, label: str, *, sent_depth: int | Callable[[], int]) -> int:
        """Fill `into` with the next message and return its depth; `sent_depth` is the deepest message we sent.

        Raises: `ChannelError`: malformed, out of step, aborted, finished, or what `fill` raises.
        """
        wanted, depth = tag(label), None
        for start, stop in chunks(len(into)):
            header = self._next()
            if header.tag != wanted or header.total != len(into):
                came = f"{header.total} bytes" + (" of another step" if header.tag != wanted else "")
                raise ChannelError(Failure.OUT_OF_STEP, expected=f"{len(into)} bytes of step '{label}'", came=came)
            expected = (stop - start, stop == len(into), header.depth if depth is None else depth)
            if (header.length, header.last, header.depth) != expected:
                came = f"{header.length} bytes at depth {header.depth}"
                raise ChannelError(Failure.MALFORMED, expected=f"a chunk of {expected[0]} bytes", came=came)
            depth = header.depth
            # Asked for when the frame is here: another thread may have sent while this one waited for it.
            deepest = sent_depth() if callable(sent_depth) else sent_depth
            if not 1 <= depth <= deepest + 1:
                expected_depth = f"a depth from 1 to {deepest + 1}"
                raise ChannelError(Failure.MALFORMED, expected=expected_depth, came=f"depth {depth}")
            if stop > start:
                self._fill(into[start:stop])
        return depth or 0

    def _next(self) -> Header:
        self._fill(memoryview(self._header))
        header = unpack(self._header)
        if header.sequence != self._sequence:
            came = f"frame {header.sequence}"
            raise ChannelError(Failure.MALFORMED, expected=f"frame {self._sequence}", came=came)
        self._sequence += 1
        if header.kind is Kind.ABORT:
            raise ChannelError(Failure.ABORTED)
        if header.kind is Kind.BYE:
            raise ChannelError(Failure.FINISHED)
        if header.kind is Kind.BUSY:
            raise ChannelError(Failure.BUSY)
        return header

    def skip_to_notice(self) -> None:
        """Read frames away until the peer's notice of its end, which is raised as its error, or until `fill` raises."""
        scrap = memoryview(bytearray(CHUNK_BYTES))
        while True:
            header = self._next()
            self._fill(scrap[: header.length])
