"""Shares after an opening: one pass gives what the arithmetic says, in every word and with and without kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from edgeward.core.errors import ConfigError
from edgeward.native.shares import add_both, truncate_opened, turn_factor

WORDS = {bits: np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)}


def holder(bits):
    return next(kind for size, kind in WORDS.items() if bits <= size)


def draw(rng, count, bits):
    return (rng.integers(0, 2**64, count, np.uint64) & np.uint64(2**bits - 1)).astype(holder(bits))


def halves(rng, value, bits):
    one = draw(rng, len(value), bits)
    return one, (value - one) & one.dtype.type(2**bits - 1)


@st.composite
def cases(draw):
    bits = draw(st.sampled_from([4, 8, 13, 16, 21, 32, 40, 52, 63, 64]))
    return bits, draw(st.integers(1, bits - 2)), draw(st.integers(0, 70)), draw(st.integers(0, 2**32))


@given(cases(), st.booleans())
def test_both_shares_make_the_quotient_or_one_unit_more(case, native):
    bits, shift, count, seed = case
    rng, kind = np.random.default_rng(seed), holder(bits)
    z = rng.integers(-(2 ** (bits - 2)), 2 ** (bits - 2), count)
    mask, small = draw(rng, count, bits), max(shift, 2)
    opened = (z.astype(np.uint64) + np.uint64(2 ** (bits - 2)) + mask) & np.uint64(2**bits - 1)
    high = halves(rng, mask >> kind.type(shift), bits)
    top = halves(rng, (mask >> kind.type(bits - 1)).astype(holder(small)), small)
    mine, theirs = halves(rng, opened.astype(kind), bits)
    shares = [
        truncate_opened(a.copy(), b.copy(), high[p], top[p], shift, bits, p == 0, native)
        for p, (a, b) in enumerate([(mine, theirs), (theirs, mine)])
    ]
    total = (shares[0].astype(np.uint64) + shares[1]) & np.uint64(2**bits - 1)
    unused = np.int64(64 - bits)
    quotient = (total.view(np.int64) << unused) >> unused
    assert all(share.max(initial=0) <= 2**bits - 1 for share in shares)
    assert set(quotient - (z >> shift)) <= {0, 1}


@given(cases(), st.sampled_from([8, 16, 32, 64]))
def test_the_kernels_give_the_bits_of_numpy(case, top_bits):
    bits, shift, count, seed = case
    rng = np.random.default_rng(seed)
    given = [draw(rng, count, bits) for _ in range(3)]
    # Also of more bits than the other words.
    top = draw(rng, count, max(top_bits, 8 * holder(shift).itemsize))
    for first in (True, False):
        forms = [
            truncate_opened(*(a.copy() for a in given), top, shift, bits, first, native) for native in (True, False)
        ]
        np.testing.assert_array_equal(*forms)


@given(st.sampled_from([8, 32, 64]), st.integers(0, 5), st.integers(0, 40), st.integers(0, 2**32))
def test_factors_turn_alike_with_and_without_kernels(bits, rows, half, seed):
    rng = np.random.default_rng(seed)
    a, mine, theirs = (draw(rng, rows * 2 * half, bits).reshape(rows, 2 * half) for _ in range(3))
    for first in (True, False):
        forms = [turn_factor(a.copy(), mine, theirs, first, native) for native in (True, False)]
        np.testing.assert_array_equal(*forms)
    np.testing.assert_array_equal(*(add_both(a.copy(), mine, theirs, native) for native in (True, False)))


@pytest.mark.parametrize("native", [True, False])
def test_the_turn_is_by_the_matrix_and_its_inverse(native):
    rng = np.random.default_rng(3)
    a, mine, theirs = (rng.integers(0, 2**64, (3, 4), np.uint64) for _ in range(3))
    one, none = np.eye(2, dtype=np.uint64), np.zeros((2, 2), np.uint64)
    r, inverse = np.block([[none, one], [one, one]]), np.block([[none - one, one], [one, none]])
    np.testing.assert_array_equal(r @ inverse, np.eye(4, dtype=np.uint64))
    e = mine + theirs
    np.testing.assert_array_equal(turn_factor(a.copy(), mine, theirs, True, native), a + e @ r)
    np.testing.assert_array_equal(turn_factor(a.copy(), mine, theirs, False, native), a - e @ inverse)


@pytest.mark.parametrize("native", [True, False])
def test_arrays_that_are_not_contiguous_are_taken(native):
    rng = np.random.default_rng(4)
    a, mine, theirs, high = (rng.integers(0, 2**64, (6, 8), np.uint64) for _ in range(4))
    top = rng.integers(0, 2**16, (6, 8)).astype(np.uint16)
    wanted = truncate_opened(mine.T.copy(), theirs.T.copy(), high.T.copy(), top.T.copy(), 16, 64, True)
    came = truncate_opened(mine.T.copy(), theirs.T.copy(), high.T.copy(), top.T, 16, 64, True, native)
    np.testing.assert_array_equal(came, wanted)
    np.testing.assert_array_equal(add_both(a.copy(), mine, np.asfortranarray(theirs), native), a + mine + theirs)


def test_what_does_not_fit_is_refused():
    words = np.zeros((2, 4), np.uint64)
    frozen = words.copy()
    frozen.flags.writeable = False
    for call in (
        lambda: add_both(words, words, words[:1]),
        lambda: add_both(words, words, words.astype(np.uint32)),
        lambda: turn_factor(words.view(np.int64), words.view(np.int64), words.view(np.int64), True),
        lambda: turn_factor(words[:, :3], words[:, :3], words[:, :3], True),
        lambda: truncate_opened(words, words, words, words[:1], 3, 64, True),
        lambda: truncate_opened(words, words, words, words, 0, 64, True),
        lambda: truncate_opened(words, words, words, words, 63, 64, True),
        lambda: truncate_opened(words, words, words, words.astype(np.uint8), 9, 64, True),
        lambda: truncate_opened(words, words, words, words.view(np.int64), 9, 64, True),
        lambda: truncate_opened(words, frozen, words, words, 9, 64, True),
        lambda: add_both(frozen, words, words),
        lambda: turn_factor(frozen, words, words, True),
        lambda: add_both(*[words.astype(">u8")] * 3),
    ):
        # Shapes are also checked by the annotations, under pytest only.
        with pytest.raises((ConfigError, TypeCheckError)):
            call()


@pytest.mark.parametrize("bits", [32, 64])
def test_arrays_that_are_not_aligned_are_taken(bits):
    rng = np.random.default_rng(5)
    given = [draw(rng, 40, bits).reshape(5, 8) for _ in range(3)]
    shifted = []
    for array in given:
        room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        room[:] = array
        assert not room.flags.aligned
        shifted.append(room)
    np.testing.assert_array_equal(add_both(*shifted), given[0] + given[1] + given[2])
    wanted = turn_factor(*(array.copy() for array in given), True)
    shifted[0][:] = given[0]
    np.testing.assert_array_equal(turn_factor(*shifted, True), wanted)
