"""Sign and ReLU of a shared value, truncation included, among three parties.

Derivation: the shares of the sign bit are split as the value is: party 0 knows d = b_0 xor b_1, parties 1 and 2 know
b_2, so b = b_2 + e d with e = 1 - 2 b_2; with t = tau + kappa + rho a (see `truncation`), b t is a sum of products of
something party 0 knows (tau, d tau, d, a, d a) and something parties 1 and 2 know. Party 0 splits its five between
them; then every product is local.
"""

from __future__ import annotations

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.planes import unpack
from edgeward.backends.mpc.protocols.activation import check_width
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.replicated.comparison import nonnegative, sign_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated, ReplicatedBits, Split
from edgeward.backends.mpc.replicated.schedule import Move, Moves, from_one, rotation
from edgeward.backends.mpc.replicated.truncation import Sides, sides, top_field
from edgeward.backends.mpc.replicated.words import two_sides
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError


def relu_moves(ring: Ring, count: int, shift: int, layout: Layout, label: str = "") -> Moves:
    """Return what `relu` sends: the sign, then party 0's products, then one element from each."""
    split = tuple(Move(f"{label}/split/{field.name}", (field.bytes, 0, 0)) for field in _fields(ring, count, shift))
    return (*sign_moves(layout, count, label), *split, *rotation(count * ring.element_bytes, label))


def step_moves(ring: Ring, count: int, layout: Layout, label: str = "") -> Moves:
    """Return what `sign` sends."""
    choice = from_one(0, count * ring.element_bytes, f"{label}/split/choice")
    return (*sign_moves(layout, count, label), *choice, *rotation(count * ring.element_bytes, label))


def sign(member: Member, x: Replicated, shift: int = 0, layout: Layout = STANDARD, label: str = "sign") -> Replicated:
    """Return shares of 1 where t >= 0 and of 0 elsewhere (no fraction bits), t = x / 2^shift as `truncate` rounds it.

    Needs -2^(width-1) <= t < 2^(width-1), and |x| as `truncate` where there is a shift. Guarantee: see `Member`. Cost:
    `step_moves`.
    """
    check_width(member.ring, shift, layout)
    ring, count = member.ring, x.own.size
    known = _choice(member, nonnegative(member, layout, sides(member, x, shift).low, label), count)
    field = Field("choice", (count,), ring.bits, False)
    (split,) = member.split([field], [known] if member.number == 0 else None, f"{label}/split")
    if member.number == 0:
        part = np.zeros(count, ring.dtype)
    else:
        part = (ring.constant(1) - known - known) * split.own
        part = part + known if member.number == 2 else part
    return member.reshare(ring.wrap(part).reshape(x.shape), 0, label)


def relu(member: Member, x: Replicated, shift: int = 0, layout: Layout = STANDARD, label: str = "relu") -> Replicated:
    """Return shares of max(t, 0), t = x / 2^shift as `truncate` rounds it.

    Needs -2^(width-1) <= t < 2^(width-1), and |x| as `truncate` where there is a shift; a value outside gives a wrong
    result without notice. Guarantee: see `Member`. Cost: `relu_moves`; at 64 bits with 16 truncated and 32 compared
    75.9 bytes per value over all three parties (53.4 of party 0), 7 rounds one after the other.
    """
    check_width(member.ring, shift, layout)
    ring, count = member.ring, x.own.size
    mine = sides(member, x, shift)
    known = _choice(member, nonnegative(member, layout, mine.low, label), count)
    arrays = None
    if mine.tau is not None:
        arrays = [mine.tau, ring.wrap(mine.tau * known), known]
        if mine.top is not None:
            small = top_field(count, shift).dtype
            arrays += [mine.top.astype(small), (mine.top * known).astype(small)]
    splits = member.split(_fields(ring, count, shift), arrays, f"{label}/split")
    part = np.zeros(count, ring.dtype) if arrays is not None else _products(member, mine, known, splits)
    return member.reshare(part.reshape(x.shape), x.fraction - shift, label)


def _fields(ring: Ring, count: int, shift: int) -> list[Field]:
    whole = [Field(name, (count,), ring.bits, False) for name in ("tau", "chosen", "choice")]
    return [*whole, top_field(count, shift), top_field(count, shift, "chosen-top")] if shift else whole


def _products(member: Member, mine: Sides, known: Elements, splits: list[Split]) -> Elements:
    """Return the share of parties 1 and 2: b_2 (tau + rho a) + e (d tau + kappa d + rho d a), and once b_2 kappa."""
    ring, own = member.ring, [split.own for split in splits]
    if mine.kappa is None:
        raise ConfigError("party 0 has no share of the products", expected="party 1 or 2", came="party 0")
    tau, chosen, choice = own[:3]
    chosen = chosen + mine.kappa * choice
    if mine.rho is not None:
        tau = tau + mine.rho * own[3].astype(ring.dtype)
        chosen = chosen + mine.rho * own[4].astype(ring.dtype)
    tau = tau + mine.kappa if member.number == 2 else tau
    return ring.wrap(known * tau + (ring.constant(1) - known - known) * chosen)


def _choice(member: Member, bits: ReplicatedBits, count: int) -> Elements:
    """Return d at party 0 and b_2 elsewhere, as elements 0 and 1."""
    return unpack(two_sides(member, bits)[0], count).astype(member.ring.dtype)
