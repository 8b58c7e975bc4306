"""Products of sign matrices on packed bits: exclusive or, then a population count."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int32, UInt64

from edgeward.core.errors import ConfigError, unknown_name
from edgeward.native.build import kernels

WORD = 64
_COMPILED = {"avx512": 3, "neon": 4, "avx2": 2, "popcnt": 1, "c": 0}
_BLOCK_WORDS = 1 << 20


def pack_signs(x: Float[np.ndarray, "*rows n"]) -> UInt64[np.ndarray, "*rows words"]:
    """Pack the signs along the last axis: bit 1 where x >= 0, 64 per word, lowest bit first, the tail zero.

    Two rows packed alike agree in their tails, so that a tail never counts in `binary_matmul`.

    >>> pack_signs(np.array([[1.0, -1.0, 0.0]]))
    array([[5]], dtype=uint64)
    """
    packed = np.packbits(x >= 0, axis=-1, bitorder="little")
    missing = -packed.shape[-1] % (WORD // 8)
    padded = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(padded).view("<u8").astype(np.uint64, copy=False)


@functools.lru_cache(maxsize=1)
def variants() -> tuple[str, ...]:
    """Return the forms of `binary_matmul` that run on this machine, fastest first; "portable" (NumPy) is the last.

    A compiled form is offered only after it has reproduced a known product, so a miscompiled one is never used.
    """
    library = kernels().library
    if library is None:
        return ("portable",)
    able = [name for name, code in _COMPILED.items() if library.edgeward_popcount_supports(code)]
    draws = np.random.default_rng(0)
    a, w = (draws.integers(0, 2**64, size=(rows, 3), dtype=np.uint64) for rows in (5, 19))
    right = _portable(a, w, 192)
    return (*(name for name in able if np.array_equal(_compiled(name, a, w, 192), right)), "portable")


def binary_matmul(
    a: UInt64[np.ndarray, "p k"], w: UInt64[np.ndarray, "o words"], bits: int, variant: str | None = None
) -> Int32[np.ndarray, "p o"]:
    """Return bits - 2 popcount(a xor w): the products of all sign rows of `a` with all sign rows of `w`.

    Shapes: `a` [p, k] and `w` [o, k] words whose positions beyond the `bits` that count agree; result int32 [p, o].
    `variant` picks a form by name, the fastest by default; all give the same integers. Cost: p o k word operations.
    """
    # The kernels trust these sizes: this check is what keeps them inside their arrays.
    if (
        a.dtype != np.uint64
        or w.dtype != np.uint64
        or a.shape[1] != w.shape[1]
        or not 0 <= bits <= WORD * a.shape[1]
        or bits >= 2**31
    ):
        raise ConfigError(
            "packed rows do not fit each other",
            expected=f"uint64, equal word counts and 0 <= bits <= {WORD} per word, below 2^31",
            came=f"{a.shape[1]} and {w.shape[1]} words of {a.dtype} and {w.dtype}, {bits} bits",
            fix="pack both operands with `pack_signs` and give the number of signs per row",
        )
    chosen = variants()[0] if variant is None else variant
    if chosen not in variants():
        raise unknown_name("popcount variant", chosen, variants())
    return _portable(a, w, bits) if chosen == "portable" else _compiled(chosen, a, w, bits)


def _compiled(variant: str, a: np.ndarray, w: np.ndarray, bits: int) -> np.ndarray:
    library = kernels().library
    if library is None:
        raise ConfigError("no kernels are loaded", fix="see `edgeward.native.status()`")
    (p, k), o = a.shape, w.shape[0]
    a, w = np.ascontiguousarray(a), np.ascontiguousarray(w)
    tiles, out = np.empty(-(-o // 8) * 8 * k, np.uint64), np.empty((p, o), np.int32)
    pointers = [array.ctypes.data for array in (a, w, tiles, out)]
    if library.edgeward_binary_matmul(_COMPILED[variant], *pointers, p, o, k, bits):
        raise ConfigError(f"this processor cannot run the popcount variant '{variant}'")
    return out


def _portable(a: np.ndarray, w: np.ndarray, bits: int) -> np.ndarray:
    out = np.empty((len(a), len(w)), np.int32)
    rows = max(1, _BLOCK_WORDS // max(1, w.size))
    for start in range(0, len(a), rows):
        differing = _popcount(a[start : start + rows, None, :] ^ w[None])
        out[start : start + rows] = bits - 2 * differing.sum(axis=-1, dtype=np.int64)
    return out


def _popcount(words: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words))
    counts = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)  # NumPy before 2.0
    return np.asarray(counts[np.ascontiguousarray(words)[..., None].view(np.uint8)].sum(axis=-1, dtype=np.uint8))
