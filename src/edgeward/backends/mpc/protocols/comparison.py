"""Comparing a public number with a shared one, bit-sliced: the borrow of their difference as shared bits.

Source: derived in docs/decisions/0008-comparison-by-chunks.md. A chunk of the mask is dealt as its thermometer code
t_v = [chunk >= v], which the public chunk looks up locally; groups of any size are merged in one round from shares of
all products of their masks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeward.backends.mpc.offline.demand import Field, Values
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.planes import Planes, pack, plane_bytes, to_planes
from edgeward.backends.mpc.protocols.comparison_keys import borrow, complete_keys, key_fields
from edgeward.backends.mpc.protocols.comparison_layout import Layout, Merge
from edgeward.backends.mpc.ring import Elements
from edgeward.native.bits import look_up_chunks

_ONES = np.uint8(0xFF)


def comparison_fields(layout: Layout, count: int) -> tuple[Field, ...]:
    """Return the material for `count` comparisons with a mask that is dealt elsewhere."""
    row = plane_bytes(count)
    if layout.keys:
        return (Field("sign", (1, row), 0, True), *key_fields(layout, count))
    fields = [Field("sign", (1, row), 0, True), Field("tables", (layout.table_bits, row), 0, True)]
    for level, merges in enumerate(layout.levels):
        opened, products = sum(m.opened for m in merges), sum(m.products for m in merges)
        fields += [Field(f"masks{level}", (opened, row), 0, False), Field(f"products{level}", (products, row), 0, True)]
    return tuple(fields)


def complete_comparison(layout: Layout, high: Elements, clear: Values) -> dict[str, np.ndarray]:
    """Return the dependent material for the mask `high`, of which the low `width` bits count (dealer only)."""
    sign = pack(((high >> high.dtype.type(layout.width - 1)) & high.dtype.type(1)).astype(np.bool_))
    if layout.keys:
        return {"sign": sign[None], **complete_keys(layout, high, clear)}
    planes, bits = list[np.ndarray](), to_planes(high, layout.width)
    for width in layout.chunks:
        planes += [_at_least(value, bits[:width]) for value in range(1, 1 << width)]
        bits = bits[width:]
    row = (0, len(sign))
    made = {"sign": sign[None], "tables": np.stack(planes) if planes else np.zeros(row, np.uint8)}
    for level, merges in enumerate(layout.levels):
        rest, parts = clear[f"masks{level}"], [np.zeros(row, np.uint8)]
        for merge in merges:
            parts.append(_products(merge, rest[: merge.opened]))
            rest = rest[merge.opened :]
        made[f"products{level}"] = np.concatenate(parts)
    return made


def _at_least(value: int, chunk: Planes) -> np.ndarray:
    """Return [chunk >= value], from the lowest bit up."""
    result = np.full(chunk.shape[1], _ONES, np.uint8)
    for place, plane in enumerate(chunk):
        result = plane & result if value >> place & 1 else plane | result
    return result


def nonnegative(
    party: Party, layout: Layout, public: Elements, material: Mapping[str, np.ndarray], label: str
) -> Planes:
    """Return this party's share of [t >= 0] for t = public - mask, as one plane.

    Exact when -2^(width-1) <= t < 2^(width-1). Cost: per element `layout.opened` bits sent, `layout.rounds` rounds.
    Guarantee: see `Party`; every opened bit is masked by a bit used once.
    """
    bits = to_planes(public, layout.width)
    if layout.keys:
        outcome = material["sign"][0] ^ borrow(party, layout, public, material)
        return np.asarray((outcome ^ bits[-1] ^ _ONES if party.first else outcome)[None])
    rows = look_up_chunks(layout.chunks, bits, material["tables"], party.first)
    less, equal = list(rows[0]), list(rows[1])
    for level, merges in enumerate(layout.levels):
        masks, products = material[f"masks{level}"], material[f"products{level}"]
        less, equal = _merge_level(party, merges, less, equal, masks, products, f"{label}/compare{level}")
    outcome = material["sign"][0] ^ (less[0] if less else np.uint8(0))
    return np.asarray((outcome ^ bits[-1] ^ _ONES if party.first else outcome)[None])


def _merge_level(
    party: Party,
    merges: tuple[Merge, ...],
    less: list[np.ndarray],
    equal: list[np.ndarray],
    masks: Planes,
    products: Planes,
    label: str,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Merge all groups of one level in one round."""
    groups, start = [], 0
    for merge in merges:
        groups.append((less[start : start + merge.size], equal[start : start + merge.size]))
        start += merge.size
    values = [
        row
        for merge, (lows, highs) in zip(merges, groups, strict=True)
        if merge.size > 1
        for row in (*highs[merge.size - merge.equals :], *lows[:-1])
    ]
    opened = party.open_planes(np.stack(values) ^ masks, label)
    next_less, next_equal = [], []
    for merge, (lows, highs) in zip(merges, groups, strict=True):
        if merge.size == 1:
            next_less.append(lows[0])
            next_equal.append(highs[0])
            continue
        tables = _tables(merge, masks[: merge.opened], products[: merge.products], party.first)
        inner, whole = _evaluate(merge, opened[: merge.opened], tables)
        next_less.append(lows[-1] ^ inner)
        next_equal.append(whole)
        opened, masks, products = opened[merge.opened :], masks[merge.opened :], products[merge.products :]
    return next_less, next_equal


def _variables(merge: Merge) -> int:
    """Return how many equalities stand above chunk 0: variable k of a table is the equality of chunk size - 1 - k."""
    return merge.size - 1


def _products(merge: Merge, masks: Planes) -> Planes:
    """Return all products that `_tables` lacks: of equality masks with each other and with each less mask."""
    if merge.size == 1:
        return masks[:0]
    equals, lows = masks[: merge.equals][::-1], masks[merge.equals :]
    table = np.full((1, masks.shape[1]), _ONES, np.uint8)
    for mask in equals:
        table = np.concatenate([table, table & mask])
    singles = {1 << k for k in range(len(equals))} | {0}
    rows = [table[i] for i in range(len(table)) if i not in singles]
    for j, low in enumerate(lows):
        rows += list(low & table[1 : 1 << (_variables(merge) - j)])
    return np.stack(rows) if rows else masks[:0]


def _tables(merge: Merge, masks: Planes, products: Planes, first: bool) -> list[np.ndarray]:
    """Return shares of the products over all subsets: equality masks, then each less mask times them."""
    equals, lows = masks[: merge.equals][::-1], masks[merge.equals :]
    table = np.empty((1 << merge.equals, masks.shape[1]), np.uint8)
    table[0] = _ONES if first else 0
    used = 0
    for i in range(1, len(table)):
        if i & (i - 1) == 0:
            table[i] = equals[i.bit_length() - 1]
        else:
            table[i] = products[used]
            used += 1
    tables = [table]
    for j, low in enumerate(lows):
        more = (1 << (_variables(merge) - j)) - 1
        tables.append(np.concatenate([low[None], products[used : used + more]]))
        used += more
    return tables


def _evaluate(merge: Merge, opened: Planes, tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of xor_(j < size-1) less_j and_(i > j) equal_i, and of the equality of the group."""
    equals, lows = opened[: merge.equals][::-1], opened[merge.equals :]
    inner = np.zeros(opened.shape[1], np.uint8)
    for j, low in enumerate(lows):
        variables = _variables(merge) - j
        inner ^= _fold((low & tables[0][: 1 << variables]) ^ tables[1 + j], equals[:variables])
    return inner, _fold(tables[0], equals) if merge.whole else inner


def _fold(table: np.ndarray, opened: Planes) -> np.ndarray:
    """Return the share of the product of (opened xor mask), given shares over all subsets of the masks."""
    for bit in opened[::-1]:
        half = len(table) // 2
        table = (bit & table[:half]) ^ table[half:]
    return np.asarray(table[0])
