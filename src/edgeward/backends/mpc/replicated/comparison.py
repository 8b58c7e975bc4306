"""The sign of t = U + V, U known to party 0 and V to parties 1 and 2: a carry, from chunks and a tree of ANDs.

Party 0 splits the thermometer code [U_c >= 1], [U_c >= 2], ... of each chunk between parties 1 and 2, who both know V_c
and so look up shares of "this chunk carries" (U_c + V_c >= 2^k) and "it passes a carry on" (= 2^k - 1) locally. The
looked-up bits are shared anew among all three, and pairs of chunks are merged with ANDs of one bit per party.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.planes import Planes, plane_bytes, select, to_planes
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.replicated.member import Member, ReplicatedBits
from edgeward.backends.mpc.replicated.products import conjunction
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, rotation
from edgeward.backends.mpc.ring import Elements

_ONES = np.uint8(0xFF)


def sign_moves(layout: Layout, count: int, label: str = "") -> Moves:
    """Return what `nonnegative` sends: codes from party 0, looked-up bits, one round of ANDs for each level."""
    layout = replace(layout, keys=False)
    row, chunks = plane_bytes(count), len(layout.chunks)
    moves = from_one(0, (layout.table_bits + 1) * row, f"{label}/split/codes")
    moves += rotation((2 * chunks - 1) * row, f"{label}/chunks")
    level = 0
    while chunks > 1:
        moves += rotation((2 * (chunks // 2) - 1) * row, f"{label}/merge{level}")
        chunks, level = chunks - chunks // 2, level + 1
    return moves


def nonnegative(member: Member, layout: Layout, low: Elements, label: str) -> ReplicatedBits:
    """Return shares of [t >= 0] as one plane; `low` is U at party 0 and V elsewhere, t = U + V modulo 2^width.

    Exact when -2^(width-1) <= t < 2^(width-1). `layout.radix` and `layout.keys` do not matter here.
    Guarantee: see `Member`. Cost: `sign_moves`; 4-bit chunks of 32 bits: 14.1 bytes per value from party 0, 3.25 from
    each, 5 rounds.
    """
    layout, bits = replace(layout, keys=False), to_planes(low, layout.width)
    row = bits.shape[1]
    field = Field("codes", (layout.table_bits + 1, row), 0, False)
    codes = [np.concatenate([*_codes(layout, bits), bits[-1:]])] if member.number == 0 else None
    (split,) = member.split([field], codes, f"{label}/split")
    if split.drawn is not None and split.rest is not None:
        looked_up = np.zeros((2 * len(layout.chunks) - 1, row), np.uint8)
        top = ReplicatedBits(split.rest[-1:], split.drawn[-1:])
    else:
        looked_up, mine = _look_up(layout, split.own, bits, member.number == 1), split.own[-1:]
        top = ReplicatedBits(mine, bits[-1:]) if member.number == 1 else ReplicatedBits(bits[-1:], mine)
    shared = member.reshare_bits(looked_up, f"{label}/chunks")
    carry = _merged(member, shared, len(layout.chunks), label)
    negative = top ^ carry
    own, following = (_ONES if first else np.uint8(0) for first in member.firsts)
    return ReplicatedBits(negative.own ^ own, negative.next ^ following)


def _codes(layout: Layout, bits: Planes) -> list[Planes]:
    """Return the thermometer code of every chunk: rows [chunk >= 1], [chunk >= 2], ..."""
    codes, offset = [], 0
    for width in layout.chunks:
        rows = bits[:0]
        for bit in bits[offset : offset + width]:
            rows = np.concatenate([rows | bit, bit[None], rows & bit])
        codes.append(rows)
        offset += width
    return codes


def _look_up(layout: Layout, codes: Planes, bits: Planes, first: bool) -> Planes:
    """Return shares of every chunk's carry, lowest first, then of "passes on" of all chunks but the lowest."""
    carries, passes, offset = [], [], 0
    zero = np.zeros((1, bits.shape[1]), np.uint8)
    for width in layout.chunks:
        entries, index = (1 << width) - 1, bits[offset : offset + width]
        # [U >= 2^k - V] is entry V of the code backwards; nothing carries where V = 0.
        backwards, codes = codes[:entries][::-1], codes[entries:]
        carries.append(select(np.concatenate([zero, backwards]), index))
        full = select(np.concatenate([backwards, zero ^ _ONES if first else zero]), index)
        passes.append(full ^ carries[-1])
        offset += width
    return np.stack([*carries, *passes[1:]])


def _merged(member: Member, shared: ReplicatedBits, chunks: int, label: str) -> ReplicatedBits:
    """Return the carry out of all chunks: of a pair it is carry_hi xor (pass_hi and carry_lo)."""
    carries = [shared[i : i + 1] for i in range(chunks)]
    # The lowest chunk's pass is never used; something must stand in its place.
    passes = [carries[0], *(shared[i : i + 1] for i in range(chunks, 2 * chunks - 1))]
    level = 0
    while len(carries) > 1:
        pairs = len(carries) // 2
        left = [passes[2 * i + 1] for i in range(pairs)] + [passes[2 * i + 1] for i in range(1, pairs)]
        right = [carries[2 * i] for i in range(pairs)] + [passes[2 * i] for i in range(1, pairs)]
        both = conjunction(member, _stacked(left), _stacked(right), f"{label}/merge{level}")
        tail = slice(2 * pairs, None)
        next_carries = [carries[2 * i + 1] ^ both[i : i + 1] for i in range(pairs)]
        next_passes = [carries[0], *(both[i : i + 1] for i in range(pairs, 2 * pairs - 1))]
        carries, passes, level = next_carries + carries[tail], next_passes + passes[tail], level + 1
    return carries[0]


def _stacked(parts: list[ReplicatedBits]) -> ReplicatedBits:
    return ReplicatedBits(np.concatenate([p.own for p in parts]), np.concatenate([p.next for p in parts]))
