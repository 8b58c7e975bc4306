"""One-time material: dealt offline, expanded from a seed, given out once.

A dealer draws a seed per party. Uniform values come out of the seeds alone; for every dependent value the second
party also receives a correction. Both parties take the material in the order in which it was dealt.

Guarantee: the material of one party is uniform and says nothing about the other's (assumed: the stream cipher;
proved otherwise). The dealer knows all masks: it is trusted, stays offline, and must never see a message of the
protocol. An entry is given out once and used once; a second use raises `TupleReusedError` before anything is sent,
because two openings under one mask give their difference away. That is kept in this process: never restore, fork or
rebuild a supply; after a restart, deal anew. Unaudited.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np

from edgeward.backends.mpc.offline.demand import Demand, Field
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError, EdgewardError
from edgeward.core.randomness import SecretBytes
from edgeward.native.prg import KEY_BYTES, stream

D = TypeVar("D", bound=Demand)


class TupleReusedError(EdgewardError):
    """One-time material was asked for a second time; nothing was sent."""


class SupplyError(EdgewardError):
    """The material that comes next is not the material that was asked for."""


@final
class Material:
    """One party's share of the arrays of one demand, to be taken once."""

    __slots__ = ("_arrays", "_index", "demand")

    def __init__(self, demand: Demand, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Hold the arrays until they are taken."""
        self.demand, self._index = demand, index
        # A list, because taking from it cannot be interrupted by another thread.
        self._arrays = [arrays]

    def take(self, kind: type[D], count: int | None = None) -> tuple[D, dict[str, np.ndarray]]:
        """Return demand and arrays and forget them; a second call raises `TupleReusedError`.

        A demand of another kind or for another number of elements raises `SupplyError` and uses nothing up.
        """
        wanted = kind.__name__ if count is None else f"{kind.__name__} of {count} elements"
        if not isinstance(self.demand, kind) or count not in (None, getattr(self.demand, "count", None)):
            raise SupplyError("this material is for something else", expected=wanted, came=repr(self.demand))
        try:
            return self.demand, self._arrays.pop()
        except IndexError:
            raise TupleReusedError(
                f"tuple {self._index} was already used",
                expected="fresh material for every call",
                came=f"a second use of {type(self.demand).__name__}",
                fix="draw new material from the supply",
            ) from None

    def renewed(self, arrays: dict[str, np.ndarray]) -> Material:
        """Return material for the same demand and place with arrays worked on; only after this one was taken."""
        if self._arrays:
            raise ConfigError("this material was not taken yet", fix="call `take` first")
        return Material(self.demand, self._index, arrays)

    def divided(self, parts: Sequence[tuple[Demand, dict[str, np.ndarray]]]) -> list[Material]:
        """Return material for parts of the demand, each with its part of the arrays; only after this one was taken."""
        if self._arrays:
            raise ConfigError("this material was not taken yet", fix="call `take` first")
        return [Material(demand, self._index, arrays) for demand, arrays in parts]

    def __repr__(self) -> str:
        """Return what the material is for, never the material."""
        return f"Material({self._index}, {self.demand!r}, {'fresh' if self._arrays else 'used'})"

    def __reduce__(self) -> str:
        """Refuse to be copied: a copy could be used again."""
        raise TypeError("one-time material is not copied or written to files")


@final
@dataclass(frozen=True, repr=False)
class Entry:
    """What a party receives for one demand: its place, the public demand, the corrections (first party: few)."""

    index: int
    demand: Demand
    corrections: bytes


@final
class Dealer:
    """Deals material for a sequence of demands; knows every mask, so it may take no other part."""

    def __init__(self, ring: Ring, *, seeds: tuple[SecretBytes, SecretBytes] | None = None) -> None:
        """Draw fresh seeds from the operating system's generator.

        `seeds` of an earlier dealer make the same weight masks again: nothing else may be dealt with them twice.
        """
        self.ring = ring
        self.seeds = seeds or (SecretBytes.draw(KEY_BYTES), SecretBytes.draw(KEY_BYTES))
        self._next = 0
        self._kept: dict[str, np.ndarray] = {}

    def batch(self) -> Dealer:
        """Return a dealer with fresh seeds, from place 0 on, that knows the weight masks dealt so far."""
        fresh = Dealer(self.ring)
        fresh._kept = dict(self._kept)
        return fresh

    def deal(self, demand: Demand) -> tuple[Entry, Entry]:
        """Return both parties' entries for the next place.

        Cost: `demand.corrections(ring, number)` bytes for each party, none for the first where no field is common.
        """
        index, self._next = self._next, self._next + 1
        fields = demand.fields(self.ring)
        first, second = (expand_fields(seed, index, fields) for seed in self.seeds)
        clear = {f.name: f.combine(first[f.name], second[f.name]) for f in fields if not f.dependent}
        made = demand.complete(self.ring, clear, self._kept)
        self._kept |= demand.keep(clear)
        common, parts = list[bytes](), list[bytes]()
        for field in fields:
            if field.dependent:
                parts.append(field.remainder(made[field.name], first[field.name]).tobytes())
                common += parts[-1:] if field.form == "common" else []
        return Entry(index, demand, b"".join(common)), Entry(index, demand, b"".join(parts))

    def supplies(self, demands: Sequence[Demand]) -> tuple[Supply, Supply]:
        """Return both parties' supplies with all `demands` dealt (for a rehearsal in one process)."""
        supplies = tuple(Supply(self.ring, number, seed) for number, seed in enumerate(self.seeds))
        for demand in demands:
            for supply, entry in zip(supplies, self.deal(demand), strict=True):
                supply.add(entry)
        return supplies[0], supplies[1]

    def __reduce__(self) -> str:
        """Refuse to be copied: a copy would deal the same material again."""
        raise TypeError("a dealer is not copied or written to files")


@final
class Supply:
    """One party's material, in the order in which it was dealt."""

    def __init__(self, ring: Ring, number: int, seed: SecretBytes, refill: Callable[[], bool] | None = None) -> None:
        """Start empty; `seed` is this party's from the dealer.

        `refill` is called when material is asked for and none waits: it adds some and returns True, or False.
        """
        self.ring, self.number, self._seed, self._refill = ring, number, seed, refill
        self._waiting: deque[Entry] = deque()
        self._received = self._next = 0

    @property
    def received(self) -> int:
        """Return how many entries came so far, which is the place of the next one."""
        return self._received

    def add(self, entry: Entry) -> None:
        """Queue what came from the dealer; a place that came before raises `TupleReusedError`."""
        if entry.index < self._received:
            raise TupleReusedError(
                f"tuple {entry.index} came twice", expected=f"tuple {self._received}", came=str(entry.index)
            )
        size = correction_bytes(entry.demand, self.ring, self.number)
        if entry.index != self._received or len(entry.corrections) != size:
            raise SupplyError(
                "the dealer's material is incomplete",
                expected=f"tuple {self._received} with {size} bytes",
                came=f"tuple {entry.index} with {len(entry.corrections)} bytes",
                fix="deal anew",
            )
        self._received += 1
        self._waiting.append(entry)

    def draw(self, demand: Demand) -> Material:
        """Return the next material, which must be for `demand`; it is never given out again."""
        while not self._waiting and self._refill is not None and self._refill():
            pass
        if not self._waiting or self._waiting[0].demand != demand:
            came = repr(self._waiting[0].demand) if self._waiting else "nothing more was dealt"
            raise SupplyError("the next material is for something else", expected=repr(demand), came=came)
        entry = self._waiting.popleft()
        fields = demand.fields(self.ring)
        arrays, rest = expand_fields(self._seed, entry.index, fields), memoryview(entry.corrections)
        for field in fields:
            if field.sent(self.number):
                arrays[field.name] = np.frombuffer(rest[: field.bytes], field.dtype).reshape(field.shape)
                rest = rest[field.bytes :]
        return Material(demand, entry.index, arrays)

    def __len__(self) -> int:
        """Return how many entries wait."""
        return len(self._waiting)

    def __reduce__(self) -> str:
        """Refuse to be copied: a copy would give the same material out again."""
        raise TypeError("a supply of one-time material is not copied or written to files")


def supplies_on_demand(
    dealer: Dealer, demands: Iterable[Demand], note: Callable[[int], None] = lambda sent: None
) -> tuple[Supply, Supply]:
    """Return both parties' supplies, to which `dealer` deals the next demand when one of them asks (a rehearsal).

    Parties on two threads stay within a step of each other, so that about one step's material exists at a time, however
    long the sequence. `note` is told the bytes of corrections of each demand in turn.
    """
    left, lock = iter(demands), threading.Lock()

    def refill() -> bool:
        # Whoever comes second finds what the first has had dealt; one more demand does no harm.
        with lock:
            demand = next(left, None)
            if demand is None:
                return False
            entries = dealer.deal(demand)
            note(sum(len(entry.corrections) for entry in entries))
            for supply, entry in zip(supplies, entries, strict=True):
                supply.add(entry)
            return True

    supplies = tuple(Supply(dealer.ring, number, seed, refill) for number, seed in enumerate(dealer.seeds))
    return supplies[0], supplies[1]


def correction_bytes(demand: Demand, ring: Ring, number: int) -> int:
    """Return the bytes of corrections that party `number` receives for `demand`."""
    return demand.corrections(ring, number)


def expand_fields(seed: SecretBytes, index: int, fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Return the seed's share of every field at one place of the stream."""
    # Every field starts at a multiple of 8 bytes, so that its elements are aligned. Common ones come from the dealer.
    common = {field.name: np.empty(0, field.dtype) for field in fields if field.form == "common"}
    fields = [field for field in fields if field.form != "common"]
    drawn, start, arrays = stream(seed, nonce=index).draw(sum(-(-field.bytes // 8) * 8 for field in fields)), 0, {}
    for field in fields:
        part = drawn[start : start + field.bytes].view(field.dtype).reshape(field.shape)
        arrays[field.name] = Ring(field.bits, 0).wrap(part) if field.bits else part
        start += -(-field.bytes // 8) * 8
    return arrays | common
