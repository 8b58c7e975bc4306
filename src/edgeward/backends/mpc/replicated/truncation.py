"""Dividing by a power of two, with party 0 on one side and parties 1 and 2 on the other: never off by more than a unit.

Derivation: party 0 knows u = x_0 + x_1 + 2^(l-2) + 2^f - 1, parties 1 and 2 know v = x_2, and u + v mod 2^l lies below
2^(l-1); hence the sum wrapped if and only if the top bit of u or of v is set: w = b + a (1 - b). So
floor(u / 2^f) + floor(v / 2^f) - 2^(l-f) w - 2^(l-2-f) = ceil(x / 2^f) or, by the carry of the low bits, one less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True, eq=False, repr=False)
class Sides:
    """t = tau + kappa + rho a, the truncated value: party 0 knows `tau` and the bit `a`, parties 1 and 2 the others.

    `low` is t's part on the own side without wraps, for a comparison modulo 2^(l-f): tau, or floor(v / 2^f).
    """

    low: Elements
    tau: Elements | None = None
    top: Elements | None = None
    kappa: Elements | None = None
    rho: Elements | None = None


def top_field(count: int, shift: int, name: str = "top") -> Field:
    """Return the field of the bit a, of which only the low `shift` bits of a share matter (times 2^(bits-shift))."""
    return Field(name, (count,), max(shift, 2), False)


def sides(member: Member, x: Replicated, shift: int) -> Sides:
    """Return this party's side of x / 2^shift, without communication."""
    ring, own, following = member.ring, x.own.reshape(-1), x.next.reshape(-1)
    check_shift(ring, shift)
    kind = ring.dtype.type
    if member.number == 0:
        if not shift:
            tau = ring.wrap(own + following)
            return Sides(tau, tau)
        u = ring.wrap(own + following + ring.constant((1 << (ring.bits - 2)) + (1 << shift) - 1))
        tau = ring.wrap((u >> kind(shift)) - ring.constant(1 << (ring.bits - 2 - shift)))
        return Sides(tau, tau, top=u >> kind(ring.bits - 1))
    v = following if member.number == 1 else own
    if not shift:
        return Sides(v, kappa=v)
    b, high = v >> kind(ring.bits - 1), v >> kind(shift)
    unit = ring.constant(1 << (ring.bits - shift))
    return Sides(high, kappa=ring.wrap(high - b * unit), rho=ring.wrap((b - ring.constant(1)) * unit))


def truncation_moves(ring: Ring, count: int, shift: int, label: str = "") -> Moves:
    """Return what `truncate` sends: `shift` bits from party 0, then one element from each; two rounds."""
    bits = from_one(0, top_field(count, shift).bytes, f"{label}/split/top")
    return (*bits, *rotation(count * ring.element_bytes, label)) if shift else ()


def truncate(member: Member, x: Replicated, shift: int, label: str = "truncate") -> Replicated:
    """Return shares of x / 2^shift rounded up or down, up with the dropped fraction as its probability.

    Needs -2^(bits-2) <= x <= 2^(bits-2) - 2^shift. Exact for multiples of 2^shift; unbiased otherwise if the share of
    parties 1 and 2 is uniform (what party 0 entered is rounded up until a message has shared it anew). Never wrong by a
    wrap, unlike the local truncation of the literature, which fails with probability 2^(1 + log|x| - bits) per value.
    Guarantee: see `Member`. Cost: `truncation_moves`.
    """
    if not shift:
        return x
    ring, count = member.ring, x.own.size
    mine = sides(member, x, shift)
    arrays = None if mine.top is None else [mine.top.astype(top_field(count, shift).dtype)]
    (split,) = member.split([top_field(count, shift)], arrays, f"{label}/split")
    if mine.tau is not None:
        part = mine.tau
    elif mine.rho is not None and mine.kappa is not None:
        part = ring.wrap(mine.rho * split.own.astype(ring.dtype))
        part = ring.wrap(part + mine.kappa) if member.number == 2 else part
    return member.reshare(part.reshape(x.shape), x.fraction - shift, label)


def check_shift(ring: Ring, shift: int) -> None:
    """Refuse a shift that leaves no value."""
    if not 0 <= shift <= ring.bits - 2:
        raise ConfigError("no such shift", expected=f"0 to {ring.bits - 2}", came=str(shift))
