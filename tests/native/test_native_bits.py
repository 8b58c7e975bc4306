"""Bit-sliced words against Python's integers, both forms."""

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.native import bits

BOTH = pytest.mark.parametrize("native", [True, False])
WORDS = {32: np.uint32, 64: np.uint64}


@BOTH
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("matrices", [0, 1, 7, 8, 19])
def test_transpose_moves_bit_j_of_word_i(native, size, matrices):
    words = np.random.default_rng(matrices).integers(0, 2**size, (matrices, size), WORDS[size])
    before = words.copy()
    out = bits.transpose(words, native)
    assert np.array_equal(words, before)
    right = [[sum((int(w[j]) >> i & 1) << j for j in range(size)) for i in range(size)] for w in words]
    assert out.tolist() == right
    assert np.array_equal(bits.transpose(out, native), words)


@BOTH
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(0, 64), st.integers(0, 2**32 - 1))
def test_planes_hold_bit_i_of_every_value(native, count, kept, seed):
    values = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    planes = bits.to_planes(values, kept, native)
    assert planes.shape == (kept, -(-count // 64))
    for i, plane in enumerate(planes):
        number = sum((int(v) >> i & 1) << j for j, v in enumerate(values))
        assert sum(int(w) << 64 * j for j, w in enumerate(plane)) == number
    mask = np.uint64(2**kept - 1)
    assert np.array_equal(bits.from_planes(planes, count, native), values & mask)


@BOTH
def test_planes_of_signed_and_short_words_are_two_s_complement(native):
    for word, size in ((np.int32, 32), (np.int64, 64), (np.uint32, 32)):
        values = np.array([-1, 2**31 - 1, -(2**31), 5]).astype(word)
        planes = bits.to_planes(values, size, native)
        assert bits.from_planes(planes, 4, native).tolist() == [int(v) % 2**size for v in values]
    strided = np.arange(20, dtype=np.int64)[::2]
    assert bits.from_planes(bits.to_planes(strided, 64, native), 10, native).tolist() == strided.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=300))
def test_packed_bits_come_back_with_a_zero_tail(given_bits):
    packed = bits.pack_bits(np.array(given_bits, np.uint8))
    assert sum(int(w) << 64 * i for i, w in enumerate(packed)) == sum(b << i for i, b in enumerate(given_bits))
    assert bits.unpack_bits(packed, len(given_bits)).tolist() == given_bits


@BOTH
@pytest.mark.parametrize("shape", [(0,), (1,), (77,), (5, 13)])
def test_beaver_and_shares_the_conjunction(native, shape):
    rng = np.random.default_rng(0)
    x, y, a, b, a0, b0, c0 = (rng.integers(0, 2**64, shape, np.uint64) for _ in range(7))
    d, e = x ^ a, y ^ b
    ours = bits.beaver_and(d, e, a0, b0, c0, True, native)
    theirs = bits.beaver_and(d, e, a ^ a0, b ^ b0, (a & b) ^ c0, False, native)
    assert np.array_equal(ours ^ theirs, x & y)


def test_misfits_are_refused():
    words = np.zeros(64, np.uint64)
    for call, match in (
        (lambda: bits.transpose(words[:32]), "not square"),
        (lambda: bits.transpose(words.astype(np.int64)), "not square"),
        (lambda: bits.to_planes(words, 65), "too many bits"),
        (lambda: bits.to_planes(words.astype(np.int32), 33), "too many bits"),
        (lambda: bits.to_planes(words.astype(float), 3), "no words"),
        (lambda: bits.from_planes(words.reshape(8, 8), 3), "planes do not fit"),
        (lambda: bits.pack_bits(words.astype(float)), "no bits"),
        (lambda: bits.unpack_bits(words, 64 * 64 + 1), "words do not fit"),
        (lambda: bits.beaver_and(words, words, words, words, words[:3], True), "shares do not fit|Type-check"),
    ):
        with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match=match):
            call()


@BOTH
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("widths", "bytes_"), [((4, 4, 3), 3), ((1,), 64), ((8, 2), 65), ((), 5), ((4,) * 8, 131)])
def test_chunks_are_looked_up_in_thermometer_codes(native, first, widths, bytes_):
    draws = np.random.default_rng(bytes_)
    count = 8 * bytes_
    chunks = [draws.integers(0, 1 << w, (2, count)) for w in widths]
    plane = lambda flags: np.packbits(flags, bitorder="little")  # noqa: E731
    index = [plane(public >> bit & 1) for w, (public, _) in zip(widths, chunks, strict=True) for bit in range(w)]
    codes = [plane(mask >= v) for w, (_, mask) in zip(widths, chunks, strict=True) for v in range(1, 1 << w)]
    empty = np.zeros((0, bytes_), np.uint8)
    rows = [np.array(x, np.uint8).reshape(-1, bytes_) if x else empty for x in (index, codes)]
    other = draws.integers(0, 256, rows[1].shape, np.uint8)
    mine = bits.look_up_chunks(widths, rows[0], rows[1] ^ other if first else other, first, native)
    theirs = bits.look_up_chunks(widths, rows[0], other if first else rows[1] ^ other, not first, native)
    less, equal = (a ^ b for a, b in zip(mine, theirs, strict=True))
    assert np.array_equal(less, np.array([plane(p < m) for p, m in chunks], np.uint8).reshape(less.shape))
    assert np.array_equal(equal, np.array([plane(p == m) for p, m in chunks], np.uint8).reshape(equal.shape))


def test_codes_for_other_chunks_are_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        bits.look_up_chunks((4,), np.zeros((4, 2), np.uint8), np.zeros((14, 2), np.uint8), True)
