"""Products of two shared values: each party multiplies the shares it holds, and one element per result is passed on.

Source: Araki, Furukawa, Lindell, Nof, Ohara, CCS 2016: with party i holding x_i, x_(i+1) and likewise of y, the sum of
x_i y_i + x_i y_(i+1) + x_(i+1) y_i over the parties is x y; shares of zero make each summand uniform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.replicated.member import Member, Replicated, ReplicatedBits
from edgeward.backends.mpc.replicated.schedule import Moves, rotation
from edgeward.backends.mpc.ring import Ring


def product_moves(ring: Ring, shape: Shape, label: str = "") -> Moves:
    """Return what a product with a result of `shape` sends: one element per result and party, one round."""
    return rotation(math.prod(shape) * ring.element_bytes, label)


def multiply(member: Member, x: Replicated, y: Replicated, label: str = "multiply") -> Replicated:
    """Return shares of the elementwise product (one may broadcast); fraction bits add up.

    Guarantee: see `Member`. Cost: `product_moves` of the result.
    """
    part = (x.own + x.next) * y.own + x.own * y.next
    return member.reshare(member.ring.wrap(part), x.fraction + y.fraction, label)


def matrix_multiply(member: Member, x: Replicated, y: Replicated, label: str = "matmul") -> Replicated:
    """Return shares of x y for matrices [m, k] and [k, n] or stacks of them; fraction bits add up.

    Guarantee: see `Member`; nothing is opened. Cost: `product_moves` of the result, whatever k; two ring products a
    party.
    """
    ring = member.ring
    part = matmul(ring.wrap(x.own + x.next), y.own, ring)
    part = matmul(x.own, y.next, ring, onto=part)
    return member.reshare(ring.wrap(part), x.fraction + y.fraction, label)


def square_sums(member: Member, x: Replicated, label: str = "squares") -> Replicated:
    """Return shares of the sum of squares of each row of [rows, columns]. Cost: one element per row, 1 round."""
    part = ((x.own + x.next + x.next) * x.own).sum(axis=1, dtype=member.ring.dtype)
    return member.reshare(member.ring.wrap(part), 2 * x.fraction, label)


def linear(
    member: Member,
    maps: Sequence[LinearMap],
    x: Replicated,
    weights: Sequence[Replicated],
    label: str = "linear",
) -> list[Replicated]:
    """Return shares of L_i(x; w_i) for every layer that reads `x`; fraction bits add up.

    Guarantee: see `Member`; nothing is opened, weights included. Cost: one element per output, 1 round for each layer;
    two ring products per party and layer.
    """
    ring, outputs = member.ring, []
    both = ring.wrap(x.own + x.next)
    for i, (map_, w) in enumerate(zip(maps, weights, strict=True)):
        part = ring.wrap(map_.apply(ring, both, w.own) + map_.apply(ring, x.own, w.next))
        outputs.append(member.reshare(part, x.fraction + w.fraction, f"{label}/{i}"))
    return outputs


def conjunction(member: Member, x: ReplicatedBits, y: ReplicatedBits, label: str = "and") -> ReplicatedBits:
    """Return shares of x and y, plane by plane. Cost: one bit per bit and party, 1 round."""
    return member.reshare_bits(((x.own ^ x.next) & y.own) ^ (x.own & y.next), label)
