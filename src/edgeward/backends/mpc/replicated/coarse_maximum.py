"""The largest value of each row, to within one step, among three parties: one AND per step and value, in a tree.

Derivation: as among two (`protocols.coarse_maximum`) t = p h + v - w, with v the place of what parties 1 and 2 know in
its segment and w that of party 0's mask -u. A word with a single one at p, every bit added to those above it, has the
bits [p <= i]; the AND of a row's words counts, by its ones, down to the largest p.

Why a tree of ANDs: a tournament of comparisons of p would send a fifth as much and take five moves per level instead
of one. The counts and tables of the two parties' form take five moves in all, but three times as much, nearly all of
it from party 0, whose link is the busiest.
"""

from __future__ import annotations

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.planes import unpack
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum
from edgeward.backends.mpc.replicated.member import Member, Replicated, ReplicatedBits
from edgeward.backends.mpc.replicated.products import conjunction
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.replicated.truncation import sides
from edgeward.backends.mpc.replicated.words import single_ones, two_sides, up_to, word_moves
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError


def maximum_moves(what: CoarseMaximum, label: str = "") -> Moves:
    """Return what `below_maximum` sends: words, words shared anew, a level of ANDs after the other, the largest."""
    moves, left, level = word_moves(what.bins, what.count, label), what.columns, 0
    size = what.rows * (1 << what.bins) // 8
    moves += rotation(left * size, f"{label}/words")
    while left > 1:
        moves += rotation((left // 2) * size, f"{label}/and{level}")
        left, level = left - left // 2, level + 1
    moves += from_one(0, _choice(what).bytes, f"{label}/split/choice")
    return (*moves, *rotation(what.rows * what.digits.element_bytes, f"{label}/largest"))


def below_maximum(member: Member, z: Replicated, what: CoarseMaximum, label: str = "coarse_max") -> Elements:
    """Return this party's side, modulo 2^domain_bits, of t - c for rows [rows, columns], c the largest within a step.

    t = U + V as in `sides`, for z / 2^shift; U at party 0, V at parties 1 and 2. With -u as the mask it is what two
    parties compute, bit for bit; values outside the range of `CoarseMaximum` give wrong results without notice.
    Guarantee: see `Member`. Cost: `maximum_moves`: at 64 steps 25 bytes per value from party 0, 16 from each other,
    about 4 + log2(columns) rounds.
    """
    what.fields(member.ring)  # refuses sizes that would give wrong results
    if z.shape != (what.rows, what.columns):
        raise ConfigError("a maximum of other rows", expected=f"{what.rows} of {what.columns}", came=repr(z))
    small, digits, slots = Ring(what.domain_bits, 0), what.digits, 1 << what.bins
    low = small.wrap(sides(member, z, what.shift).low)
    if member.number == 0:
        place = slots // 2 - what.segment(small.wrap(np.negative(low)))
        words = up_to(single_ones(member, place.astype(np.uint64), what.bins, label))
    else:
        words = up_to(single_ones(member, what.segment(low).astype(np.uint64), what.bins, label))
    turned = np.ascontiguousarray(words.reshape(what.rows, what.columns).T)
    shared = member.reshare_bits(turned.view(np.uint8), f"{label}/words")
    known = unpack(two_sides(member, _all(member, shared, label))[0], what.rows * slots)
    below = _counted(member, known, what, label)
    step = small.constant(1 << what.step_bits)
    if member.number == 0:
        count = digits.wrap(below.own + below.next - digits.constant(slots // 2))
    else:
        count = below.next if member.number == 1 else below.own
    lifted = count.astype(small.dtype) * step
    return small.wrap(low.reshape(z.shape) + lifted[:, None])


def _all(member: Member, shared: ReplicatedBits, label: str) -> ReplicatedBits:
    """Return the AND of all planes."""
    level = 0
    while (left := len(shared.own)) > 1:
        pairs = left // 2
        both = conjunction(member, shared[:pairs], shared[pairs : 2 * pairs], f"{label}/and{level}")
        rest = shared[2 * pairs :]
        shared = ReplicatedBits(np.concatenate([both.own, rest.own]), np.concatenate([both.next, rest.next]))
        level += 1
    return shared


def _choice(what: CoarseMaximum) -> Field:
    return Field("choice", (what.rows, 1 << what.bins), what.digits.bits, False)


def _counted(member: Member, known: np.ndarray, what: CoarseMaximum, label: str) -> Replicated:
    """Return how many bits of each row are set: d + e (1 - 2 d) of each, d at party 0 and e elsewhere."""
    digits, field = what.digits, _choice(what)
    bits = known.reshape(field.shape).astype(digits.dtype)
    (split,) = member.split([field], [bits] if member.number == 0 else None, f"{label}/split")
    part = np.zeros(what.rows, digits.dtype)
    if member.number != 0:
        ones = (digits.constant(1) - bits - bits) * split.own
        part = digits.wrap((ones + bits if member.number == 2 else ones).sum(axis=1, dtype=digits.dtype))
    return member.reshare(part, 0, f"{label}/largest", digits)
