"""Softmax of rows among three parties: what two parties compute (`protocols.softmax`), in the forms of this room.

Only the coarse maximum and the exponential read the values in two sides; no truncation comes before them, since both
read modulo a small power of two, where sides need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum
from edgeward.backends.mpc.protocols.exponential import Exponential
from edgeward.backends.mpc.protocols.rows import RowScaling
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.replicated.coarse_maximum import below_maximum, maximum_moves
from edgeward.backends.mpc.replicated.exponential import exponential, exponential_moves
from edgeward.backends.mpc.replicated.inverse import inverse, inverse_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.products import multiply, product_moves
from edgeward.backends.mpc.replicated.schedule import Moves
from edgeward.backends.mpc.replicated.truncation import truncate, truncation_moves
from edgeward.backends.mpc.ring import Ring


@final
@dataclass(frozen=True)
class _Sizes:
    """The parts of a softmax whose sizes two parties and three have alike."""

    maximum: CoarseMaximum
    terms: Exponential
    drop: int


def softmax_moves(ring: Ring, what: Softmax, label: str = "") -> Moves:
    """Return what `softmax` sends."""
    sizes = _sizes(ring, what)
    moves = maximum_moves(sizes.maximum, f"{label}/max") + exponential_moves(ring, sizes.terms, f"{label}/exp")
    moves += truncation_moves(ring, sizes.terms.count, sizes.drop, f"{label}/rows")
    moves += inverse_moves(ring, what.reciprocal, f"{label}/inverse")
    return (*moves, *product_moves(ring, (what.rows, what.columns), f"{label}/scale"))


def softmax(member: Member, z: Replicated, what: Softmax, label: str = "softmax") -> Replicated:
    """Return shares of softmax over the last axis of [rows, columns].

    Values must lie in [-64, 62), as among two; absolute error below 2^-14 (measured). Guarantee: see `Member`. Cost:
    `softmax_moves`: 172 bytes per value over all three parties, 91 of them from party 0, and 0.8 to 1 kB per row; 24 to
    30 rounds for 10 to 512 columns. The result still has to be truncated.
    """
    ring, sizes = member.ring, _sizes(member.ring, what)
    lower = below_maximum(member, z, sizes.maximum, f"{label}/max")
    long = exponential(member, lower, sizes.terms, f"{label}/exp")
    terms = truncate(member, long, sizes.drop, f"{label}/rows")
    sums = [ring.wrap(part.sum(axis=1, dtype=ring.dtype)) for part in (terms.own, terms.next)]
    total = inverse(member, Replicated(sums[0], sums[1], terms.fraction), what.reciprocal, f"{label}/inverse")
    return multiply(member, terms, column(total), f"{label}/scale")


def column(x: Replicated) -> Replicated:
    """Return [rows] values as [rows, 1]."""
    return Replicated(np.ascontiguousarray(x.own[:, None]), np.ascontiguousarray(x.next[:, None]), x.fraction)


def _sizes(ring: Ring, what: Softmax) -> _Sizes:
    maximum, terms, rows, *_ = what.demands(ring)
    if isinstance(maximum, CoarseMaximum) and isinstance(terms, Exponential) and isinstance(rows, RowScaling):
        return _Sizes(maximum, terms, rows.shift)
    raise TypeError("a softmax is a maximum, exponentials and rows")
