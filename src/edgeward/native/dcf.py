"""Distributed comparison functions: two short keys whose evaluations at a public x are shares of the bit [x < alpha].

Source: Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function Secret Sharing for Mixed-Mode and Fixed-Point
Secure Computation", EUROCRYPT 2021 (eprint 2020/1392), figure 1, with payload 1 in Z_2. Ours: the last `leaf` levels
are one block that holds all their results (early termination; Boyle, Gilboa, Ishai, CCS 2016, section 3.2.1), and flag
bits travel in the three lowest bits of a block, so that seeds have 125 bits and a level's correction word is 16 bytes.

The length-doubling generator is AES-128 under a public key in Matyas-Meyer-Oseas form, H(x) = AES(x) xor x: a seed s,
whose three lowest bits are 0, has the children H(s) and H(s xor 1), and a block of results H(s xor 2).

A key of party b is its root, 16 bytes that only it and the dealer know, and the correction words, equal for both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from edgeward.core.errors import ConfigError
from edgeward.core.extras import require
from edgeward.native.build import kernels

BLOCK = 16
"""Bytes of a root, of the public cipher key, and of one correction word."""
_LEAF_BITS = 7
_EXTRA = "mpc"
_FLAGS = np.uint64(7)
_ONE = np.uint64(1)
_ONES = np.uint64(2**64 - 1)


def leaf_bits(bits: int) -> int:
    """Return how many of the lowest bits one block of results covers."""
    return min(bits, _LEAF_BITS)


def word_count(bits: int) -> int:
    """Return the correction words of a comparison of `bits` bits.

    >>> word_count(31), word_count(5)
    (25, 1)
    """
    return bits - leaf_bits(bits) + 1


def generate(
    alpha: UInt64[np.ndarray, " n"],
    bits: int,
    roots: UInt8[np.ndarray, "2 n 16"],
    key: UInt8[np.ndarray, "16"],
    native: bool = True,
) -> UInt8[np.ndarray, "n words 16"]:
    """Return the correction words for the secret thresholds `alpha` below 2^bits (dealer only).

    Guarantee: one root and the words say nothing about alpha (assumed: AES under a public key is an ideal permutation,
    of which H is correlation robust; seeds of 125 bits). Compiled and portable forms give the same bytes; neither
    branches nor addresses depend on secrets (reviewed, not measured). Cost: 4 (bits - 6) AES calls a value.
    """
    _check(alpha, bits, roots.shape[1:], key)
    library = kernels().library if native and _reproduces() else None
    if library is None:
        return _generated(alpha, bits, roots, key)
    return _generate_compiled(library, alpha, bits, roots, key)


def evaluate(
    party: int,
    x: UInt64[np.ndarray, " n"],
    bits: int,
    roots: UInt8[np.ndarray, "n 16"],
    words: UInt8[np.ndarray, "n words 16"],
    key: UInt8[np.ndarray, "16"],
    native: bool = True,
) -> UInt8[np.ndarray, " bytes"]:
    """Return party 0's or 1's share of the bits [x < alpha], packed lowest first; x below 2^bits is public.

    Cost: bits - 5 AES calls a value, 16 bytes of words read for each but the last.
    """
    _check(x, bits, roots.shape, key)
    if party not in (0, 1) or words.shape != (len(x), word_count(bits), BLOCK):
        raise ConfigError(
            "no such evaluation",
            expected=f"party 0 or 1 and words {(len(x), word_count(bits), BLOCK)}",
            came=f"party {party} and {words.shape}",
        )
    library = kernels().library if native and _reproduces() else None
    if library is None:
        return _evaluated(party, x, bits, roots, words, key)
    return _evaluate_compiled(library, party, x, bits, roots, words, key)


def hashed(
    blocks: UInt8[np.ndarray, "n 16"], key: UInt8[np.ndarray, "16"], native: bool = True
) -> UInt8[np.ndarray, "n 16"]:
    """Return AES(x) xor x for every block, with the processor's AES or that of `cryptography`."""
    library = kernels().library if native else None
    if library is None or not library.edgeward_dcf_supports():
        return np.asarray(_hash(key)(np.ascontiguousarray(blocks).view(np.uint64)).view(np.uint8))
    out, given, public = np.empty_like(blocks), np.ascontiguousarray(blocks), np.ascontiguousarray(key)
    library.edgeward_dcf_hash(public.ctypes.data, given.ctypes.data, out.ctypes.data, len(blocks))
    return out


def _check(values: np.ndarray, bits: int, roots: tuple[int, ...], key: np.ndarray) -> None:
    if not 1 <= bits <= 63 or roots != (len(values), BLOCK) or key.shape != (BLOCK,):
        raise ConfigError(
            "no such comparison",
            expected=f"1 to 63 bits, roots of {(len(values), BLOCK)} and a key of {BLOCK} bytes",
            came=f"{bits} bits, {roots}, {key.shape}",
        )


def _hash(key: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that takes [n, 2] words of blocks to AES(x) xor x."""
    ciphers = require("cryptography.hazmat.primitives.ciphers", extra=_EXTRA)
    modes = require("cryptography.hazmat.primitives.ciphers.modes", extra=_EXTRA)
    cipher = ciphers.Cipher(ciphers.algorithms.AES(key.tobytes()), modes.ECB())

    def apply(blocks: np.ndarray) -> np.ndarray:
        encrypted = cipher.encryptor().update(np.ascontiguousarray(blocks).tobytes())
        return np.asarray(np.frombuffer(encrypted, np.uint64).reshape(-1, 2) ^ blocks)

    return apply


def _tweaked(seeds: np.ndarray, low: np.ndarray | int) -> np.ndarray:
    out: np.ndarray = seeds.copy()
    out[:, 0] ^= np.uint64(low) if isinstance(low, int) else low
    return out


def _seeds(blocks: np.ndarray) -> np.ndarray:
    out: np.ndarray = blocks.copy()
    out[:, 0] &= ~_FLAGS
    return out


def _words(blocks: np.ndarray) -> np.ndarray:
    return np.asarray(np.ascontiguousarray(blocks).view("<u8").astype(np.uint64, copy=False))


def _masked(blocks: np.ndarray, bit: np.ndarray) -> np.ndarray:
    return np.asarray(blocks & (np.uint64(0) - bit)[:, None])


def _generate_compiled(library: Any, alpha: np.ndarray, bits: int, roots: np.ndarray, key: np.ndarray) -> np.ndarray:
    words = np.empty((len(alpha), word_count(bits), BLOCK), np.uint8)
    given = [np.ascontiguousarray(part) for part in (alpha, roots, key)]
    pointers = (part.ctypes.data for part in (*given, words))
    library.edgeward_dcf_generate(bits, leaf_bits(bits), len(alpha), *pointers)
    return words


def _evaluate_compiled(
    library: Any, party: int, x: np.ndarray, bits: int, roots: np.ndarray, words: np.ndarray, key: np.ndarray
) -> np.ndarray:
    out = np.zeros(-(-len(x) // 8), np.uint8)
    given = [np.ascontiguousarray(part) for part in (x, roots, words, key)]
    pointers = (part.ctypes.data for part in (*given, out))
    library.edgeward_dcf_evaluate(party, bits, leaf_bits(bits), len(x), *pointers)
    if len(x) % 8:
        out[-1] &= (1 << len(x) % 8) - 1
    return out


def _generated(alpha: np.ndarray, bits: int, roots: np.ndarray, key: np.ndarray) -> np.ndarray:
    make, leaf = _hash(key), leaf_bits(bits)
    levels = bits - leaf
    states = [_seeds(_words(part)) for part in roots]
    turns = [np.full(len(alpha), b, np.uint64) for b in (0, 1)]
    total, words = np.zeros(len(alpha), np.uint64), np.empty((len(alpha), levels + 1, 2), np.uint64)
    for level in range(levels):
        a = (alpha >> np.uint64(bits - 1 - level)) & _ONE
        children = [(make(state), make(_tweaked(state, 1))) for state in states]
        left, right = (children[0][side] ^ children[1][side] for side in (0, 1))
        differ = _masked(left ^ right, a)
        kept, lost = left ^ differ, right ^ differ
        value = ((lost[:, 0] >> _ONE) ^ total ^ a) & _ONE
        go = ((left[:, 0] ^ a ^ _ONE) & _ONE, (right[:, 0] ^ a) & _ONE)
        total = (total ^ (kept[:, 0] >> _ONE) ^ value) & _ONE
        common = _seeds(lost)
        words[:, level] = _tweaked(common, go[0] | (go[1] << _ONE) | (value << np.uint64(2)))
        chosen = go[0] ^ ((go[0] ^ go[1]) & a)
        for b, (first, second) in enumerate(children):
            own, was = first ^ _masked(first ^ second, a), turns[b]
            turns[b] = (own[:, 0] ^ (was & chosen)) & _ONE
            states[b] = _seeds(own ^ _masked(common, was))
    last = make(_tweaked(states[0], 2)) ^ make(_tweaked(states[1], 2))
    words[:, levels] = last ^ _masked(np.full_like(last, _ONES), total) ^ _below(alpha & np.uint64((1 << leaf) - 1))
    return words.astype("<u8", copy=False).view(np.uint8).reshape(len(alpha), levels + 1, BLOCK)


def _evaluated(
    party: int, x: np.ndarray, bits: int, roots: np.ndarray, words: np.ndarray, key: np.ndarray
) -> np.ndarray:
    make, leaf, state = _hash(key), leaf_bits(bits), _seeds(_words(roots))
    levels = bits - leaf
    turn, total = np.full(len(x), party, np.uint64), np.zeros(len(x), np.uint64)
    for level in range(levels):
        side = (x >> np.uint64(bits - 1 - level)) & _ONE
        made, correction = make(_tweaked(state, side)), _masked(_words(words[:, level]), turn)
        total ^= ((made[:, 0] >> _ONE) ^ (correction[:, 0] >> np.uint64(2))) & _ONE
        turn = (made[:, 0] ^ (correction[:, 0] >> side)) & _ONE
        state = _seeds(made ^ correction)
    block = make(_tweaked(state, 2)) ^ _masked(_words(words[:, levels]), turn)
    place = x & np.uint64((1 << leaf) - 1)
    upper = np.uint64(0) - (place >> np.uint64(6))
    half = (block[:, 0] & ~upper) | (block[:, 1] & upper)
    bit = (total ^ (half >> (place & np.uint64(63)))) & _ONE
    return np.packbits(bit.astype(np.uint8), bitorder="little")


def _below(place: np.ndarray) -> np.ndarray:
    """Return the blocks whose bits below `place` (at most 127) are ones."""
    upper = np.uint64(0) - (place >> np.uint64(6))
    part = (_ONE << (place & np.uint64(63))) - _ONE
    return np.stack([part | upper, part & upper], axis=1)


@functools.lru_cache(maxsize=1)
def _reproduces() -> bool:
    """Return whether the compiled form runs here and gives the portable form's bytes."""
    library, draws = kernels().library, np.random.default_rng(0)
    if library is None or not library.edgeward_dcf_supports():
        return False
    roots, key = draws.integers(0, 256, (2, 19, BLOCK), np.uint8), draws.integers(0, 256, BLOCK, np.uint8)
    values, bits = draws.integers(0, 1 << 10, (2, 19), np.uint64), 10
    words = _generated(values[0], bits, roots, key)
    result = _evaluated(1, values[1], bits, roots[1], words, key)
    return np.array_equal(_generate_compiled(library, values[0], bits, roots, key), words) and np.array_equal(
        _evaluate_compiled(library, 1, values[1], bits, roots[1], words, key), result
    )
