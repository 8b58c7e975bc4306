"""Reciprocal, inverse square root and logarithm of positive shared values among three parties.

As among two (`protocols.inverse`): the leading bit is moved to one place, a curve over [1, 2) looked up, the answer
moved back. All powers of two are compared at once; only two sums of the bits are shared anew, not every bit: how far
to move, 2^(last - e), and the factor that belongs to e.

Why: a row has one value of this kind, so that bytes are spread over the row, and rounds count. Newton's steps
(`protocols.iterations`) take some thirty products with truncations, three moves each and one after the other, and reach
over a few hundred; a table of the whole range without moving would have thousands of segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.protocols.inverse import Inverse
from edgeward.backends.mpc.protocols.lookup import table_field
from edgeward.backends.mpc.protocols.normalization import Normalization
from edgeward.backends.mpc.replicated.comparison import nonnegative, sign_moves
from edgeward.backends.mpc.replicated.curves import curve_value, table_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.products import multiply, product_moves
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.replicated.truncation import check_shift, sides, truncate, truncation_moves
from edgeward.backends.mpc.replicated.words import flags, two_sides
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError


def inverse_moves(ring: Ring, what: Inverse, label: str = "") -> Moves:
    """Return what `inverse` sends."""
    made, count = _normalization(ring, what), what.count
    moves = sign_moves(made.layout, made.bounds * count, f"{label}/compare")
    moves += from_one(0, _choice(ring, made).bytes, f"{label}/compare/split/choice")
    moves += rotation(2 * count * ring.element_bytes, f"{label}/powers")
    moves += product_moves(ring, (count,), f"{label}/move")
    moves += table_moves(ring, table_field(what.curve(ring), count), count, f"{label}/lookup")
    if what.function != "logarithm":
        moves += product_moves(ring, (count,), f"{label}/multiply")
    return (*moves, *truncation_moves(ring, count, what.drop, f"{label}/truncate"))


def inverse(member: Member, z: Replicated, what: Inverse, label: str = "inverse") -> Replicated:
    """Return shares of the function of z > 0.

    A value outside the range gives a wrong result without notice. Guarantee: see `Member`. Cost: `inverse_moves`.
    """
    if z.fraction != what.fraction or z.own.size != what.count:
        expected = f"{what.count} with {what.fraction} fraction bits"
        raise ConfigError("an inverse of other numbers", expected=expected, came=repr(z))
    ring, shape = member.ring, z.shape
    flat = Replicated(z.own.reshape(-1), z.next.reshape(-1), z.fraction)
    made = _normalization(ring, what)
    scale = what.curve_scale if what.function == "logarithm" else what.weight_scale
    powers, weights = _powers(member, flat, made, what.weights(), scale, label)
    moved = multiply(member, flat, powers, f"{label}/move")
    at_last = Replicated(moved.own, moved.next, what.last)
    mantissa = curve_value(member, at_last, what.curve(ring), f"{label}/lookup")
    if what.function == "logarithm":
        own, following = ring.wrap(mantissa.own + weights.own), ring.wrap(mantissa.next + weights.next)
        long = Replicated(own, following, mantissa.fraction)
    else:
        long = multiply(member, mantissa, weights, f"{label}/multiply")
    result = truncate(member, long, what.drop, f"{label}/truncate")
    return Replicated(result.own.reshape(shape), result.next.reshape(shape), result.fraction)


def _powers(
    member: Member, z: Replicated, made: Normalization, weights: Sequence[int], scale: int, label: str
) -> tuple[Replicated, Replicated]:
    """Return shares of 2^(last - e) and of weights[e - first], e the place of the leading bit of z."""
    ring, low, count = member.ring, sides(member, z, 0).low, made.count
    bounds = [ring.constant(1 << (made.first + 1 + j) if member.number == 0 else 0) for j in range(made.bounds)]
    apart = np.concatenate([ring.wrap(low - bound) for bound in bounds])
    compare = f"{label}/compare"
    bits = nonnegative(member, replace(made.layout, keys=False), apart, compare)
    known = flags(two_sides(member, bits), made.bounds * count)[0].reshape(made.bounds, count).astype(ring.dtype)
    (split,) = member.split([_choice(ring, made)], [known] if member.number == 0 else None, f"{compare}/split")
    parts = np.zeros((2, count), ring.dtype)
    if member.number != 0:
        above = (ring.constant(1) - known - known) * split.own
        above = above + known if member.number == 2 else above
        powers = [-(1 << (made.bounds - 1 - j)) for j in range(made.bounds)]
        steps = [after - before for before, after in pairwise(weights)]
        for part, factors in zip(parts, (powers, steps), strict=True):
            for row, factor in zip(above, factors, strict=True):
                part += row * ring.constant(factor)
        if member.number == 1:
            parts += np.array([[ring.constant(1 << made.bounds)], [ring.constant(weights[0])]], ring.dtype)
    both = member.reshare(ring.wrap(parts), 0, f"{label}/powers")
    return Replicated(both.own[0], both.next[0], 0), Replicated(both.own[1], both.next[1], scale)


def _normalization(ring: Ring, what: Inverse) -> Normalization:
    """Return how the leading bit is found; refuses, at all parties alike, what two parties refuse."""
    made = Normalization(what.count, what.first, what.last, what.style)
    made.fields(ring)
    check_shift(ring, what.drop)
    return made


def _choice(ring: Ring, made: Normalization) -> Field:
    return Field("choice", (made.bounds, made.count), ring.bits, False)
