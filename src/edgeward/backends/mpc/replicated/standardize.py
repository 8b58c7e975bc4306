"""Rows brought to mean 0 and variance 1 among three parties: what two parties compute (`protocols.standardize`).

A sum of squares is a sum of products, which costs one element per row and party, whatever the row's length.
"""

from __future__ import annotations

from edgeward.backends.mpc.protocols.standardize import Standardization, centred
from edgeward.backends.mpc.replicated.inverse import inverse, inverse_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.products import multiply, product_moves, square_sums
from edgeward.backends.mpc.replicated.schedule import Moves
from edgeward.backends.mpc.replicated.softmax import column
from edgeward.backends.mpc.replicated.truncation import truncate, truncation_moves
from edgeward.backends.mpc.ring import Ring


def standardize_moves(ring: Ring, what: Standardization, label: str = "") -> Moves:
    """Return what `standardize` sends."""
    what.demands(ring)  # refuses sizes that have no deviation
    moves = truncation_moves(ring, what.rows * what.columns, what.shift, f"{label}/rows")
    moves += product_moves(ring, (what.rows,), f"{label}/squares")
    moves += inverse_moves(ring, what.inverse_root, f"{label}/inverse")
    return (*moves, *product_moves(ring, (what.rows, what.columns), f"{label}/scale"))


def standardize(member: Member, x: Replicated, what: Standardization, label: str = "standardize") -> Replicated:
    """Return shares of every row of [rows, columns] less its mean, over its deviation.

    The variance must keep below 2^10, as among two; see `Standardization` for the error. Guarantee: see `Member`. Cost:
    `standardize_moves`: 49 bytes per value over all three parties and 2 kB per row, 18 rounds. The result still has to
    be truncated.
    """
    ring = member.ring
    what.demands(ring)  # refuses sizes that have no deviation
    own, following = (centred(ring, part, what) for part in x.parts())
    t = truncate(member, Replicated(own.elements, following.elements, own.fraction), what.shift, f"{label}/rows")
    squares = square_sums(member, t, f"{label}/squares")
    parts = [
        ring.wrap(part + ring.constant(what.floor * first))
        for part, first in zip((squares.own, squares.next), member.firsts, strict=True)
    ]
    shared = Replicated(parts[0], parts[1], squares.fraction)
    deviation = inverse(member, shared, what.inverse_root, f"{label}/inverse")
    return multiply(member, t, column(deviation), f"{label}/scale")
