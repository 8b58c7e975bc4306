"""Curved functions among three parties: party 0 deals the tables that a dealer deals to two, while the protocol runs.

Derivation: t = u + v with u known to party 0 and v to parties 1 and 2, so that v is to t what the opened value is in
the look-ups among two (`protocols.lookup`, `protocols.exponential`), and -u what the dealer's mask is. Party 0 splits
the table re-centred at -u; parties 1 and 2 look it up at v and share the sum of what they find anew.
"""

from __future__ import annotations

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.curve import Curve
from edgeward.backends.mpc.protocols.curved import Tailed
from edgeward.backends.mpc.protocols.exponential import Exponential, public_factor
from edgeward.backends.mpc.protocols.lookup import deal_table, look_up, table_field
from edgeward.backends.mpc.replicated.activation import sign, step_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.products import multiply, product_moves
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.replicated.truncation import sides, truncate, truncation_moves
from edgeward.backends.mpc.ring import Ring


def table_moves(ring: Ring, field: Field, count: int, label: str = "") -> Moves:
    """Return what a look-up of `count` values in tables of `field` sends."""
    return (*from_one(0, field.bytes, f"{label}/split/{field.name}"), *rotation(count * ring.element_bytes, label))


def curve_value(member: Member, x: Replicated, curve: Curve, label: str = "lookup") -> Replicated:
    """Return shares of the curve at x, with its scale; x must lie in its domain.

    Error: that of `lookup` among two. Guarantee: see `Member`. Cost: `table_moves`: a table from party 0 for each value
    (`curve.table_bytes`), one element from each party, 2 rounds.
    """
    ring, count, mine = member.ring, x.own.size, sides(member, x, 0)
    dealt = [deal_table(curve, ring.wrap(np.negative(mine.low)))] if member.number == 0 else None
    (split,) = member.split([table_field(curve, count)], dealt, f"{label}/split")
    part = np.zeros(count, ring.dtype) if dealt else look_up(curve, mine.low, split.own)
    return member.reshare(part.reshape(x.shape), curve.scale, label)


def exponential_value(member: Member, x: Replicated, demand: Exponential, label: str = "exp") -> Replicated:
    """Return shares of exp x with the demand's scale and power; see `protocols.exponential` for domain and error.

    Guarantee: see `Member`. Cost: `table_moves`, 2 rounds.
    """
    ring, small, mine = member.ring, Ring(demand.domain_bits, 0), sides(member, x, 0)
    field = demand.fields(ring)[1]
    if member.number == 0:
        mask = small.wrap(ring.wrap(np.negative(mine.low)))
        member.split([field], [demand.complete(ring, {"mask": mask}, {})["table"]], f"{label}/split")
        part = np.zeros(demand.count, ring.dtype)
    else:
        (split,) = member.split([field], None, f"{label}/split")
        m = small.wrap(mine.low).astype(np.uint64)
        found = split.own[(m >> np.uint64(demand.place_bits)).astype(np.intp), np.arange(demand.count)]
        part = ring.wrap(found * public_factor(demand, m).astype(ring.dtype))
    return member.reshare(part.reshape(x.shape), demand.scale + demand.power, label)


def activation_moves(ring: Ring, count: int, tailed: Tailed, layout: Layout, label: str = "") -> Moves:
    """Return what `activate` sends."""
    curve, drop = tailed.curve, tailed.curve.scale - tailed.curve.fraction
    moves = table_moves(ring, table_field(curve, count), count, f"{label}/curve")
    moves += truncation_moves(ring, count, drop, f"{label}/truncate")
    moves += step_moves(ring, 2 * count, layout, f"{label}/bounds")
    return (*moves, *product_moves(ring, (1 if tailed.above is not None else 2, count), f"{label}/choose"))


def activate(member: Member, x: Replicated, tailed: Tailed, layout: Layout, label: str = "curved") -> Replicated:
    """Return shares of an activation with tails (`Tailed`), for x with the curve's fraction bits.

    Needs x - bound within the comparison's width. Guarantee: see `Member`. Cost: `activation_moves`.
    """
    ring, curve = member.ring, tailed.curve
    firsts, flat = member.firsts, (x.own.reshape(-1), x.next.reshape(-1))
    found = truncate(
        member, curve_value(member, x, curve, f"{label}/curve"), curve.scale - curve.fraction, f"{label}/truncate"
    )
    apart = [
        ring.wrap(np.concatenate([part - ring.constant(bound * first) for bound in (tailed.low, tailed.high)]))
        for part, first in zip(flat, firsts, strict=True)
    ]
    bits = sign(member, Replicated(apart[0], apart[1], x.fraction), 0, layout, f"{label}/bounds")
    factors, values = [], []
    for part, first, bit, value in zip(flat, firsts, (bits.own, bits.next), (found.own, found.next), strict=True):
        low, high = bit[: part.size], bit[part.size :]
        inside, value = ring.wrap(low - high), value.reshape(-1)
        tail = ring.wrap(part - ring.constant(tailed.below * first))
        factors.append(np.stack([inside] if tailed.above is not None else [inside, high]))
        values.append(np.stack([value] if tailed.above is not None else [value, tail]))
    chosen = multiply(
        member, Replicated(factors[0], factors[1], 0), Replicated(values[0], values[1], x.fraction), f"{label}/choose"
    )
    parts = []
    for part, first, bit in zip((chosen.own, chosen.next), firsts, (bits.own, bits.next), strict=True):
        total = part.sum(axis=0, dtype=ring.dtype) + ring.constant(tailed.below * first)
        if tailed.above is not None:
            total = total + bit[x.own.size :] * ring.constant(tailed.above - tailed.below)
        parts.append(ring.wrap(total).reshape(x.shape))
    return Replicated(parts[0], parts[1], x.fraction)
