"""Additive shares after an opening: sums, truncation, and the factors of matrix products, each in one pass over memory.

Elements are unsigned words that hold integers modulo 2^bits. Arrays of words narrower than 32 bits (toy rings), or
that are not contiguous or not aligned, take the NumPy forms, which give the same bits. Guarantee of the compiled forms:
neither branches nor addresses depend on the values (reviewed, not measured).
"""

from __future__ import annotations

import ctypes

import numpy as np
from jaxtyping import UInt

from edgeward.core.errors import ConfigError
from edgeward.native.build import kernels

_PIECE = 1 << 13


def truncate_opened(
    mine: UInt[np.ndarray, "*n"],
    theirs: UInt[np.ndarray, "*n"],
    high: UInt[np.ndarray, "*n"],
    top: UInt[np.ndarray, "*n"],
    shift: int,
    bits: int,
    first: bool,
    native: bool = True,
) -> UInt[np.ndarray, "*n"]:
    """Return one party's share of z / 2^shift, from both shares of the opened m = z + 2^(bits-2) + r.

    Written over `theirs` where that is contiguous. `high` is its share of floor(r / 2^shift), `top` of r's highest bit,
    modulo 2^shift or more; shift is above 0.
    share = [first] (floor(m / 2^shift) - 2^(bits-2-shift)) - high + 2^(bits-shift) (m's highest bit is 0) top, modulo
    2^bits. Cost: one pass, 4 words of traffic per element. Source: see `edgeward.backends.mpc.protocols.truncation`.
    """
    _check(theirs, mine, high)
    if not 0 < shift <= bits - 2 or bits > 8 * mine.itemsize:
        raise ConfigError("no such truncation", expected="0 < shift <= bits - 2", came=f"{shift} of {bits} bits")
    if top.shape != mine.shape or top.dtype.kind != "u" or not top.dtype.isnative or 8 * top.itemsize < shift:
        came = f"{top.dtype}{list(top.shape)}"
        raise ConfigError("shares of top bits do not fit", expected=f"words of {shift} bits or more", came=came)
    library = _library(native and top.itemsize <= mine.itemsize, mine, theirs, high, top)
    if library is None:
        one, other, upper, lead = (array.reshape(-1) for array in (mine, theirs, high, top))
        for start in range(0, mine.size, _PIECE):
            cut = slice(start, start + _PIECE)
            _truncate(one[cut], other[cut], upper[cut], lead[cut], shift, bits, first)
        return other.reshape(theirs.shape)
    pointers = [array.ctypes.data for array in (mine, theirs, high, top)]
    library.edgeward_shares_truncate(mine.itemsize, top.itemsize, *pointers, mine.size, shift, bits, int(first))
    return theirs


def add_both(
    total: UInt[np.ndarray, "*n"], mine: UInt[np.ndarray, "*n"], theirs: UInt[np.ndarray, "*n"], native: bool = True
) -> UInt[np.ndarray, "*n"]:
    """Add both shares of an opened array to `total`, in place, modulo the word; return it. Cost: one pass."""
    _check(total, mine, theirs)
    library = _library(native, total, mine, theirs)
    if library is None:
        total += mine
        total += theirs
    else:
        pointers = [array.ctypes.data for array in (mine, theirs, total)]
        library.edgeward_shares_add(mine.itemsize, *pointers, mine.size)
    return total


def turn_factor(
    a: UInt[np.ndarray, "*rows k"],
    mine: UInt[np.ndarray, "*rows k"],
    theirs: UInt[np.ndarray, "*rows k"],
    first: bool,
    native: bool = True,
) -> UInt[np.ndarray, "*rows k"]:
    """Return a + E R for the party with `first`, a - E R^-1 for the other, with E = mine + theirs; over `a`.

    R = [[0, 1], [1, 1]] acts on the halves of the last dimension, which is even. Modulo the word. Cost: one pass.
    Source: see `edgeward.backends.mpc.protocols.matrices`.
    """
    _check(a, mine, theirs)
    if a.ndim < 1 or a.shape[-1] % 2:
        raise ConfigError("these rows have no halves", expected="an even last dimension", came=str(a.shape))
    half = a.shape[-1] // 2
    library = _library(native, a, mine, theirs)
    if library is not None:
        pointers = [array.ctypes.data for array in (mine, theirs, a)]
        library.edgeward_shares_turn(a.itemsize, *pointers, a.size // max(1, 2 * half), half, int(first))
        return a
    e1, e2 = (mine[..., part] + theirs[..., part] for part in (slice(half), slice(half, None)))
    a1, a2 = a[..., :half], a[..., half:]
    a1 += e2 if first else e1 - e2
    a2 += e1 + e2 if first else np.negative(e1)
    return a


def _check(onto: np.ndarray, *others: np.ndarray) -> None:
    """Refuse shares that are not of one shape and type, and a result that cannot be written over `onto`."""
    kinds = {(array.shape, array.dtype) for array in (onto, *others)}
    if len(kinds) != 1 or onto.dtype.kind != "u" or not onto.dtype.isnative:
        came = ", ".join(f"{array.dtype}{list(array.shape)}" for array in (onto, *others))
        raise ConfigError("shares do not fit", expected="unsigned words of one shape and type", came=came)
    if not onto.flags.writeable:
        raise ConfigError("a share cannot be written over", expected="an array of its own", came="a read-only array")


def _library(native: bool, *arrays: np.ndarray) -> ctypes.CDLL | None:
    whole = arrays[0].itemsize >= 4 and all(array.flags.c_contiguous and array.flags.aligned for array in arrays)
    return kernels().library if native and whole else None


def _truncate(
    mine: np.ndarray, m: np.ndarray, high: np.ndarray, top: np.ndarray, shift: int, bits: int, first: bool
) -> None:
    word = m.dtype.type
    ring = word((1 << bits) - 1)
    m += mine
    m &= ring
    wrapped = top.astype(m.dtype)
    wrapped &= (m >> word(bits - 1)) - word(1)
    wrapped <<= word(bits - shift)
    wrapped -= high
    if first:
        m >>= word(shift)
        m -= word(1 << (bits - 2 - shift))
        m += wrapped
    else:
        m[:] = wrapped
    m &= ring
