"""Bit-sliced words: one bit of 64 values per word, so that word operations act on 64 values at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from edgeward.core.errors import ConfigError
from edgeward.native.build import kernels

_TYPES: dict[int, Any] = {32: np.uint32, 64: np.uint64}


def transpose(words: np.ndarray, native: bool = True) -> np.ndarray:
    """Return the transposes of the bit matrices in `words` [..., 32] uint32 or [..., 64] uint64.

    Bit j of result word i is bit i of word j. `native=False` is the NumPy form: the same bits, slower.

    >>> int(transpose(np.array([2] + [0] * 31, np.uint32))[1])
    1
    """
    size = words.shape[-1] if words.ndim else 0
    if size not in _TYPES or words.dtype != _TYPES[size]:
        raise ConfigError(
            "not square bit matrices",
            expected="[..., 32] of uint32 or [..., 64] of uint64",
            came=f"{words.shape} of {words.dtype}",
        )
    library = kernels().library if native and _reproduces() else None
    if library is None:
        return _transposed(words)
    out = np.array(words, order="C", copy=True)
    library.edgeward_transpose_bits(size, out.ctypes.data, out.size // size)
    return out


def to_planes(values: np.ndarray, kept: int, native: bool = True) -> UInt64[np.ndarray, "kept words"]:
    """Return the `kept` lowest bits of `values` [n] as planes: bit j of word w of plane i is bit i of value 64 w + j.

    Values are unsigned or signed words of 32 or 64 bits (two's complement); the tail of the last word is zero.

    >>> to_planes(np.array([1, 2, 3], np.uint64), kept=2).tolist()
    [[5], [6]]
    """
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.dtype.itemsize not in (4, 8):
        raise ConfigError("no words to slice", expected="[n] of 32- or 64-bit integers", came=_told(values))
    if not 0 <= kept <= 8 * values.dtype.itemsize:
        raise ConfigError("too many bits kept", expected=f"0 to {8 * values.dtype.itemsize}", came=str(kept))
    unsigned = values.view(_TYPES[8 * values.dtype.itemsize]) if values.flags.c_contiguous else values
    words = np.ascontiguousarray(unsigned).astype(np.uint64, copy=False)
    library = kernels().library if native and _reproduces() else None
    planes = np.zeros((kept, -(-len(words) // 64)), np.uint64)
    if library is None:
        for plane, bit in zip(planes, range(kept), strict=True):
            plane[:] = _packed((words >> np.uint64(bit)) & np.uint64(1))
    else:
        library.edgeward_slice_bits(kept, 0, words.ctypes.data, planes.ctypes.data, len(words))
    return planes


def from_planes(
    planes: UInt64[np.ndarray, "kept words"], count: int, native: bool = True
) -> UInt64[np.ndarray, " count"]:
    """Return the `count` values whose lowest bits are `planes` (see `to_planes`); their other bits are zero.

    >>> from_planes(np.array([[5], [6]], np.uint64), count=3)
    array([1, 2, 3], dtype=uint64)
    """
    if planes.ndim != 2 or planes.dtype != np.uint64 or len(planes) > 64 or planes.shape[1] != -(-count // 64):
        raise ConfigError(
            "planes do not fit", expected=f"[at most 64, {-(-count // 64)}] of uint64", came=_told(planes)
        )
    values, planes = np.zeros(count, np.uint64), np.ascontiguousarray(planes)
    library = kernels().library if native and _reproduces() else None
    if library is None:
        for bit, plane in enumerate(planes):
            values |= unpack_bits(plane, count).astype(np.uint64) << np.uint64(bit)
    else:
        library.edgeward_slice_bits(len(planes), 1, values.ctypes.data, planes.ctypes.data, count)
    return values


def pack_bits(bits: np.ndarray) -> UInt64[np.ndarray, " words"]:
    """Return `bits` [n] (bool, or integers 0 and 1) as words, lowest bit first, the tail zero.

    >>> pack_bits(np.array([1, 0, 1]))
    array([5], dtype=uint64)
    """
    if bits.ndim != 1 or (bits.dtype != np.bool_ and bits.dtype.kind not in "iu"):
        raise ConfigError("no bits to pack", expected="[n] of bool or integers", came=_told(bits))
    return _packed(bits)


def unpack_bits(words: UInt64[np.ndarray, " words"], count: int) -> np.ndarray:
    """Return the first `count` bits of `words` as uint8, each 0 or 1."""
    if words.ndim != 1 or words.dtype != np.uint64 or not 0 <= count <= 64 * len(words):
        raise ConfigError("words do not fit", expected=f"uint64 words of at least {count} bits", came=_told(words))
    little = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(little, bitorder="little", count=count)


def beaver_and(
    d: UInt64[np.ndarray, "*n"],
    e: UInt64[np.ndarray, "*n"],
    a: UInt64[np.ndarray, "*n"],
    b: UInt64[np.ndarray, "*n"],
    c: UInt64[np.ndarray, "*n"],
    first: bool,
    native: bool = True,
) -> UInt64[np.ndarray, "*n"]:
    """Return one party's share of x and y, from the opened d = x xor a and e = y xor b and its shares a, b, c.

    z = c xor (d and b) xor (e and a), and for the one party with `first` also xor (d and e), where c shares a and b.
    Plain exclusive or and AND of words are NumPy's own `^` and `&`. Cost: one pass, 48 bytes of traffic per word.
    Source: Beaver, Efficient multiparty protocols using circuit randomization, 1991.
    """
    given = (d, e, a, b, c)
    if any(x.shape != d.shape or x.dtype != np.uint64 for x in given):
        raise ConfigError("shares do not fit", expected="five uint64 arrays of one shape", came=_told(*given))
    library = kernels().library if native else None
    if library is None:
        return np.asarray(c ^ (d & (b ^ e)) ^ (e & a) if first else c ^ (d & b) ^ (e & a))
    whole, out = [np.ascontiguousarray(x) for x in given], np.empty(d.shape, np.uint64)
    library.edgeward_beaver_and(int(first), *(x.ctypes.data for x in (*whole, out)), out.size)
    return out


def look_up_chunks(
    widths: Sequence[int],
    bits: UInt8[np.ndarray, "planes bytes"],
    codes: UInt8[np.ndarray, "entries bytes"],
    first: bool,
    native: bool = True,
) -> tuple[UInt8[np.ndarray, "chunks bytes"], UInt8[np.ndarray, "chunks bytes"]]:
    """Return shares of [chunk < mask] and [chunk = mask] for public chunks of `widths` bits, lowest first.

    `bits` are the chunks' planes; `codes` a share of the masks' thermometer codes [mask >= v], v = 1 .. 2^width - 1, in
    turn for every chunk; one party is `first`. Bits behind the last element are free. Neither branches nor addresses
    depend on values. Cost: 6 (2^width - 1) operations on bits per chunk and element.
    """
    if bits.shape[0] < sum(widths) or codes.shape[0] != sum((1 << w) - 1 for w in widths) or max(widths, default=1) > 8:
        raise ConfigError("chunks do not fit", expected=f"planes and codes of {list(widths)}", came=_told(bits, codes))
    less, equal = (np.empty((len(widths), bits.shape[1]), np.uint8) for _ in range(2))
    library, one = kernels().library if native else None, 0xFF if first else 0
    if library is not None and bits.shape[1] == codes.shape[1]:
        sizes, whole, table = np.array(widths, np.int64), np.ascontiguousarray(bits), np.ascontiguousarray(codes)
        rows = (whole, table, less, equal)
        library.edgeward_look_up_chunks(
            sizes.ctypes.data, len(widths), one, *(x.ctypes.data for x in rows), bits.shape[1]
        )
        return less, equal
    edge = np.full((1, bits.shape[1]), one, np.uint8)
    for chunk, width in enumerate(widths):
        index, code = bits[:width], codes[: (1 << width) - 1]
        less[chunk] = select(np.concatenate([code, np.zeros_like(edge)]), index)
        equal[chunk] = select(np.concatenate([edge, code]), index) ^ less[chunk]
        bits, codes = bits[width:], codes[(1 << width) - 1 :]
    return less, equal


def select(table: UInt8[np.ndarray, "entries bytes"], index: UInt8[np.ndarray, "planes bytes"]) -> np.ndarray:
    """Return, for each bit position, the bit of that row of `table` which the bits of `index` spell."""
    for bit in index[::-1]:
        low, high = table[: len(table) // 2], table[len(table) // 2 :]
        table = low ^ ((low ^ high) & bit)
    return np.asarray(table[0])


@functools.lru_cache(maxsize=1)
def _reproduces() -> bool:
    """Return whether the compiled transposes give the NumPy form's bits."""
    library, draws = kernels().library, np.random.default_rng(0)
    if library is None:
        return False
    for size, word in _TYPES.items():
        words = draws.integers(0, 2**size, (9, size), word)
        out = words.copy()
        library.edgeward_transpose_bits(size, out.ctypes.data, 9)
        if not np.array_equal(out, _transposed(words)):
            return False
    return True


def _transposed(words: np.ndarray) -> np.ndarray:
    size = words.shape[-1]
    little = np.ascontiguousarray(words).astype(words.dtype.newbyteorder("<"), copy=False)
    bits = np.unpackbits(little[..., None].view(np.uint8), axis=-1, bitorder="little")
    packed = np.packbits(np.swapaxes(bits, -1, -2), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view(f"<u{size // 8}")[..., 0].astype(words.dtype, copy=False)


def _packed(bits: np.ndarray) -> np.ndarray:
    packed = np.packbits(bits.astype(np.bool_, copy=False), bitorder="little")
    padded = np.pad(packed, (0, -len(packed) % 8))
    return np.ascontiguousarray(padded).view("<u8").astype(np.uint64, copy=False)


def _told(*arrays: np.ndarray) -> str:
    return ", ".join(f"{list(x.shape)} of {x.dtype}" for x in arrays)
