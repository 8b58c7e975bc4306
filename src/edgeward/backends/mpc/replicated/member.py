"""One of the three parties while a protocol runs: its shares, its keys, its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.offline.tuples import expand_fields
from edgeward.backends.mpc.planes import Planes
from edgeward.backends.mpc.replicated.neighbours import Neighbours
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes
from edgeward.native.prg import KEY_BYTES


@final
@dataclass(frozen=True, eq=False)
class Replicated:
    """A party's two of the three shares x_0 + x_1 + x_2 = x modulo 2^bits: party i holds `own` x_i and `next` x_(i+1).

    Guarantee: the two shares are independent of the value (proved, when made by this room): uniform, but for the share
    of an entered value that is zero, and for the owner's own.
    """

    own: Elements
    next: Elements
    fraction: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the public shape of the value."""
        return tuple(self.own.shape)

    def parts(self) -> tuple[Shared, Shared]:
        """Return both shares, each as a share by itself: what is linear is done to each."""
        return Shared(self.own, self.fraction), Shared(self.next, self.fraction)

    def __repr__(self) -> str:
        """Return the shape, never the shares."""
        return f"Replicated(shape={self.shape}, fraction={self.fraction})"


@final
@dataclass(frozen=True, eq=False)
class ReplicatedBits:
    """A party's two of the three boolean shares of bits in planes."""

    own: Planes
    next: Planes

    def __xor__(self, other: ReplicatedBits) -> ReplicatedBits:
        """Return the exclusive or, without communication."""
        return ReplicatedBits(self.own ^ other.own, self.next ^ other.next)

    def __getitem__(self, rows: slice) -> ReplicatedBits:
        """Return some of the planes."""
        return ReplicatedBits(self.own[rows], self.next[rows])

    def __repr__(self) -> str:
        """Return the sizes, never the shares."""
        return f"ReplicatedBits({len(self.own)} planes)"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """An array that party 0 split between parties 1 and 2: `drawn` from the key it shares with 1, `rest` sent to 2."""

    drawn: np.ndarray | None
    rest: np.ndarray | None

    @property
    def own(self) -> np.ndarray:
        """Return the half of party 1 or 2."""
        half = self.rest if self.drawn is None else self.drawn
        if half is None or (self.drawn is not None and self.rest is not None):
            raise ConfigError("party 0 knows the whole array", expected="party 1 or 2", came="party 0")
        return half


@final
class Seeds:
    """The keys k_i and k_(i+1) of party i; neighbours share one, and nobody holds all three.

    Every draw has a place, which all three parties count alike; no place is drawn from twice.
    """

    __slots__ = ("_keys", "_place")

    def __init__(self, own: SecretBytes, next_: SecretBytes) -> None:
        """Start at the first place."""
        self._keys, self._place = (own, next_), 0

    def zero(self, field: Field) -> np.ndarray:
        """Return this party's share of zeros: F(k_i) - F(k_(i+1)), or their exclusive or."""
        own, following = (self._draw(key, field) for key in self._keys)
        self._place += 1
        return field.remainder(own, following)

    def mask(self, field: Field, key: int | None) -> np.ndarray | None:
        """Return the array of the own (0) or the next (1) key, or None at the party that holds neither."""
        drawn = None if key is None else self._draw(self._keys[key], field)
        self._place += 1
        return drawn

    def _draw(self, key: SecretBytes, field: Field) -> np.ndarray:
        return expand_fields(key, self._place, [field])[field.name]

    def __reduce__(self) -> str:
        """Refuse to be copied: a copy would mask two values alike."""
        raise TypeError("seeds are not copied or written to files")


@final
class Member:
    """A party of three: number, ring, neighbours, seeds.

    Guarantee of every protocol run on it: a semi-honest adversary who statically corrupts one of the three parties sees
    uniform values only, until a result is opened (proved for each message, given that the stream cipher's output looks
    uniform). Nothing is promised against a party that deviates, or against any two that pool what they hold: together
    they know every value. There is no dealer. Shapes, formats and the order of operations are public. Unaudited.
    """

    def __init__(self, number: int, ring: Ring, link: Neighbours) -> None:
        """Agree on seeds with the neighbours: 32 bytes passed on, one round."""
        if number not in (0, 1, 2):
            raise ConfigError("no such party", expected="0, 1 or 2", came=str(number))
        self.number, self.ring, self._link = number, ring, link
        own = SecretBytes.draw(KEY_BYTES)
        following = self.pass_on(np.frombuffer(own.reveal(), np.uint8), "seeds")
        self._seeds = Seeds(own, SecretBytes(following.tobytes()))

    @property
    def firsts(self) -> tuple[bool, bool]:
        """Return for the own and the next share whether it is share 0, to which public constants are added."""
        return self.number == 0, self.number == 2

    def send(self, array: np.ndarray, label: str) -> None:
        """Send to the left neighbour; an empty array is not sent."""
        if array.size:
            self._link.send(np.ascontiguousarray(array), label)

    def receive(self, shape: tuple[int, ...], dtype: np.dtype, label: str) -> np.ndarray:
        """Return what the right neighbour sent."""
        return self._link.receive(shape, dtype, label) if np.prod(shape) else np.empty(shape, dtype)

    def pass_on(self, array: np.ndarray, label: str) -> np.ndarray:
        """Send to the left, return what comes from the right, of the same shape and type: one round."""
        self.send(array, label)
        return self.receive(array.shape, array.dtype, label)

    def reshare(self, part: Elements, fraction: int, label: str, ring: Ring | None = None) -> Replicated:
        """Return the value whose three summands are each party's `part`: one element each, 1 round.

        `ring`: where the sum is taken, if not in the member's.
        """
        ring = ring or self.ring
        zero = self._seeds.zero(Field("zero", part.shape, ring.bits, False))
        own = ring.wrap(part + zero)
        return Replicated(own, self.pass_on(own, label), fraction)

    def reshare_bits(self, part: Planes, label: str) -> ReplicatedBits:
        """Return the bits whose exclusive or are the parties' `part`s: one bit each, 1 round."""
        own = part ^ self._seeds.zero(Field("zero", part.shape, 0, False))
        return ReplicatedBits(own, self.pass_on(own, label))

    def split(self, fields: Sequence[Field], arrays: Sequence[np.ndarray] | None, label: str) -> list[Split]:
        """Split `arrays`, known to party 0, between parties 1 and 2. Cost: their bytes from party 0 to 2, 1 round."""
        halves = []
        for i, field in enumerate(fields):
            drawn = self._seeds.mask(field, {0: 1, 1: 0}.get(self.number))
            rest = None
            if arrays is not None and drawn is not None:
                if arrays[i].shape != field.shape:
                    # Subtraction would spread one mask over several values.
                    raise ConfigError("an array of another size", expected=f"{field}", came=str(arrays[i].shape))
                rest = field.remainder(arrays[i], drawn)
                self.send(rest, f"{label}/{field.name}")
            halves.append(Split(drawn, rest))
        if self.number != 2:
            return halves
        return [Split(None, self.receive(field.shape, field.dtype, f"{label}/{field.name}")) for field in fields]

    def enter(self, x: Elements | None, shape: tuple[int, ...], fraction: int, owner: int, label: str) -> Replicated:
        """Return shares of what party `owner` knows as `x`. Cost: one element each from the owner, 1 round."""
        field, place = Field("mask", shape, self.ring.bits, False), (self.number - owner) % 3
        drawn = self._seeds.mask(field, {0: 1, 1: 0}.get(place))
        nothing = np.zeros(shape, self.ring.dtype)
        if place == 1:
            return Replicated(nothing if drawn is None else drawn, nothing, fraction)
        if place == 2:
            return Replicated(nothing, self.receive(shape, self.ring.dtype, label), fraction)
        if x is None or drawn is None or x.shape != tuple(shape):
            came = "none" if x is None else f"elements {x.shape}"
            raise ConfigError("the owner brings the value", expected=f"elements {shape} at party {owner}", came=came)
        own = self.ring.wrap(x - drawn)
        self.send(own, label)
        return Replicated(own, drawn, fraction)

    def open(self, x: Replicated, label: str = "open") -> Elements:
        """Return the value: all parties learn it. Cost: one element each, 1 round."""
        missing = self.pass_on(x.next, label)
        return self.ring.wrap(x.own + x.next + missing)

    def reveal(self, x: Replicated, to: int, label: str = "result") -> Elements | None:
        """Return the value at party `to` and None elsewhere. Cost: one element from its right neighbour, 1 round."""
        if self.number == (to + 1) % 3:
            self.send(x.next, label)
        if self.number != to:
            return None
        return self.ring.wrap(x.own + x.next + self.receive(x.shape, self.ring.dtype, label))
