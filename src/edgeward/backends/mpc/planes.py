"""Bits of many numbers as planes: one row of packed bytes for each bit position."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt, UInt8

from edgeward.native import bits as native

Planes = UInt8[np.ndarray, "_ _"]
"""Bit i of element e is bit e % 8 of byte e // 8 in row i; positions beyond the last element are free."""


def plane_bytes(elements: int) -> int:
    """Return the bytes one plane takes.

    >>> plane_bytes(9)
    2
    """
    return -(-elements // 8)


def to_planes(x: UInt[np.ndarray, " n"], bits: int) -> Planes:
    """Return the low `bits` bits of `n` numbers as planes, lowest first. Cost: bits n bit moves."""
    wide = x if x.dtype.itemsize >= 4 else x.astype(np.uint32)
    words = native.to_planes(wide, bits).astype("<u8", copy=False)
    return np.ascontiguousarray(words.view(np.uint8)[:, : plane_bytes(len(x))])


def pack(flags: Bool[np.ndarray, " n"]) -> UInt8[np.ndarray, " bytes"]:
    """Return `n` bits packed, lowest first."""
    return np.packbits(flags, bitorder="little")


def unpack(plane: UInt8[np.ndarray, " bytes"], elements: int) -> UInt8[np.ndarray, " n"]:
    """Return the first `elements` bits of a plane as zeros and ones."""
    return np.unpackbits(plane, count=elements, bitorder="little")


def select(table: UInt8[np.ndarray, "entries bytes"], index: Planes) -> UInt8[np.ndarray, " bytes"]:
    """Return, for each element, the bit of `table` at the position that `index` spells (2^planes entries).

    `index` is public; the table may be a share, since looking up is linear in it. Cost: 3 (entries - 1) row operations.
    """
    return native.select(table, index)
