"""exp of a shared value among three parties, from a few long segments: bits choose among factors that party 0 knows.

Derivation: as among two (`protocols.exponential`) exp t = exp(p h - w) exp(v), where p is a sum of something that party
0 knows and something that parties 1 and 2 know. With bits b_j = [p = j] = d_j xor e_j, d_j known to party 0, the first
factor is the sum over j of d_j A_j + e_j (1 - 2 d_j) A_j, A_j = exp(j h - w), which party 0 splits.

Why: where segments are long, exp(j h) is below the last place for all but a few j, and a table for every j (`curves`)
is mostly zeros that have to be sent. The softmax has 16 segments of which 3 matter: 59 bytes per value over all three
parties instead of 152, for 2 rounds more.
"""

from __future__ import annotations

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.planes import pack, plane_bytes
from edgeward.backends.mpc.protocols.exponential import Exponential, public_factor
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.replicated.words import flags, single_ones, two_sides, word_moves
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError


def live_segments(what: Exponential) -> list[int]:
    """Return the segments, modulo their number, whose factor does not round to zero."""
    return [j for j, step in enumerate(what.segment_factors()) if np.rint(step * 2.0**what.scale) >= 1]


def exponential_moves(ring: Ring, what: Exponential, label: str = "") -> Moves:
    """Return what `exponential` sends: a word and the factors from party 0, bits and results shared anew."""
    moves = word_moves(what.segments, what.count, label)
    moves += rotation(len(live_segments(what)) * plane_bytes(what.count), f"{label}/segments")
    moves += from_one(0, _factors(ring, what).bytes, f"{label}/split/factors")
    return (*moves, *rotation(what.count * ring.element_bytes, label))


def exponential(member: Member, low: Elements, what: Exponential, label: str = "exp") -> Replicated:
    """Return shares of exp of t = U + V modulo 2^domain_bits, `low` being U at party 0 and V elsewhere.

    Domain, error and result as in `protocols.exponential`: with -U as the mask the same bits. Guarantee: see `Member`.
    Cost: `exponential_moves`, 4 rounds.
    """
    ring, small, live = member.ring, Ring(what.domain_bits, 0), live_segments(what)
    what.fields(ring)  # refuses sizes that would give wrong results
    if low.size != what.count:
        raise ConfigError("an exponential of other values", expected=str(what.count), came=str(low.size))
    flat = small.wrap(low.reshape(-1))
    mine = small.wrap(np.negative(flat)) if member.number == 0 else flat
    segment = mine.astype(np.uint64) >> np.uint64(what.place_bits)
    words = single_ones(member, np.negative(segment) if member.number == 0 else segment, what.segments, label)
    planes = np.stack([pack((words >> words.dtype.type(j)) & words.dtype.type(1) != 0) for j in live])
    bits = member.reshare_bits(planes, f"{label}/segments")
    known = flags(two_sides(member, bits), what.count).astype(ring.dtype)
    field = _factors(ring, what)
    if member.number == 0:
        own, steps = what.own_factor(mine.astype(np.uint64)), what.segment_factors()
        factors = np.stack([ring.from_integers(what.rounded(np.full_like(own, steps[j]), own)) for j in live])
        chosen = ring.wrap((factors * known).sum(axis=0, keepdims=True, dtype=ring.dtype))
        signs = ring.constant(1) - known - known
        member.split([field], [np.concatenate([chosen, ring.wrap(factors * signs)])], f"{label}/split")
        part = np.zeros(what.count, ring.dtype)
    else:
        (split,) = member.split([field], None, f"{label}/split")
        found = split.own[0] + (known * split.own[1:]).sum(axis=0, dtype=ring.dtype)
        part = ring.wrap(found * public_factor(what, mine.astype(np.uint64)).astype(ring.dtype))
    return member.reshare(part.reshape(low.shape), what.scale + what.power, label)


def _factors(ring: Ring, what: Exponential) -> Field:
    return Field("factors", (1 + len(live_segments(what)), what.count), ring.bits, False)
