"""Words with a single one whose place is the sum of something party 0 knows and something parties 1 and 2 know.

Party 0 splits a word of 2^bits bits with the one at its own number; parties 1 and 2 turn their halves by theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.planes import Planes, unpack
from edgeward.backends.mpc.replicated.member import Member, ReplicatedBits
from edgeward.backends.mpc.replicated.schedule import Moves, from_one
from edgeward.backends.mpc.ring import Elements
from edgeward.core.errors import ConfigError

Words = UInt[np.ndarray, " n"]

_WORDS: Mapping[int, np.dtype] = {3: np.dtype("<u1"), 4: np.dtype("<u2"), 5: np.dtype("<u4"), 6: np.dtype("<u8")}


def word_moves(bits: int, count: int, label: str = "") -> Moves:
    """Return what `single_ones` sends: a word from party 0 for each number."""
    return from_one(0, _field(bits, count).bytes, f"{label}/split/words")


def single_ones(member: Member, numbers: Elements, bits: int, label: str) -> Words:
    """Return shares, by exclusive or of parties 1 and 2, of words with a one at a + k modulo 2^bits, zeros elsewhere.

    `numbers` are a at party 0 and k at the others, modulo 2^bits; party 0 is given zeros. Guarantee: see `Member`.
    Cost: `word_moves`, 1 round.
    """
    field = _field(bits, numbers.size)
    kind, size = _WORDS[bits], 1 << bits
    place = (numbers.astype(np.uint64) & np.uint64(size - 1)).astype(kind)
    known = [(kind.type(1) << place).view(np.uint8)] if member.number == 0 else None
    (split,) = member.split([field], known, f"{label}/split")
    if known is not None:
        return np.zeros(numbers.size, kind)
    half = split.own.view(kind)
    back = (kind.type(size - 1) & (kind.type(0) - place)).astype(kind)
    return np.asarray((half << place) | (half >> back))


def up_to(words: Words) -> Words:
    """Return the exclusive or of every bit with all below it; local, share by share."""
    bits, step, total = 8 * words.dtype.itemsize, 1, words.copy()
    while step < bits:
        total ^= total << words.dtype.type(step)
        step *= 2
    return np.asarray(total)


def two_sides(member: Member, bits: ReplicatedBits) -> Planes:
    """Return d at party 0 and e at parties 1 and 2, with every bit d xor e."""
    if member.number == 0:
        return np.asarray(bits.own ^ bits.next)
    return bits.next if member.number == 1 else bits.own


def flags(planes: Planes, count: int) -> UInt[np.ndarray, "planes count"]:
    """Return the first `count` bits of every plane as zeros and ones."""
    return np.stack([unpack(plane, count) for plane in planes])


def _field(bits: int, count: int) -> Field:
    if bits not in _WORDS:
        raise ConfigError("no such words", expected="2^3 to 2^6 bits", came=f"2^{bits}")
    return Field("words", (count * _WORDS[bits].itemsize,), 0, False)
