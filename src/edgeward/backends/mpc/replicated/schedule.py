"""What a three-party protocol declares to send: moves in order, whose bytes and rounds follow by playing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

from edgeward.backends.mpc.transport.meter import Meter, Reading

Sizes = tuple[int, int, int]
Readings = tuple[Reading, Reading, Reading]


@final
@dataclass(frozen=True)
class Move:
    """The bytes that parties 0, 1 and 2 pass to their left neighbours (2, 0 and 1), each before it receives."""

    label: str
    sent: Sizes


Moves = tuple[Move, ...]


def rotation(count: int, label: str = "") -> Moves:
    """Return the move in which every party passes on `count` bytes."""
    return (Move(label, (count,) * 3),)


def from_one(party: int, count: int, label: str = "") -> Moves:
    """Return the move in which one party alone passes on `count` bytes."""
    sent = [count if number == party else 0 for number in range(3)]
    return (Move(label, (sent[0], sent[1], sent[2])),)


def under(label: str, moves: Iterable[Move]) -> Moves:
    """Return the moves with labels below `label`, as the protocols make them."""
    return tuple(replace(move, label=f"{label}{move.label}") for move in moves)


def play(moves: Iterable[Move], setup: Iterable[Move] = ()) -> tuple[Readings, Readings]:
    """Return what each party's meter counts in `setup`, and in `moves` after it.

    Rounds are the length of the longest chain of messages at whose end a party stands. A neighbour that has nothing to
    wait for runs ahead, so that chains are shorter than the number of moves.
    """
    meters = (Meter(), Meter(), Meter())
    before = _play(meters, setup)
    after = _play(meters, moves)
    return before, (after[0] - before[0], after[1] - before[1], after[2] - before[2])


def _play(meters: tuple[Meter, Meter, Meter], moves: Iterable[Move]) -> Readings:
    for move in moves:
        depths = [
            meter.note_sent(move.label, size) if size else 0 for meter, size in zip(meters, move.sent, strict=True)
        ]
        for number, (size, depth) in enumerate(zip(move.sent, depths, strict=True)):
            if size:
                meters[(number - 1) % 3].note_received(move.label, size, depth)
    return meters[0].reading(), meters[1].reading(), meters[2].reading()
