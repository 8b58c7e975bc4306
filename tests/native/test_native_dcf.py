"""Distributed comparison functions: every input of small domains, boundaries of large ones, one cipher, equal forms."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from edgeward.core.errors import ConfigError
from edgeward.native import dcf


def keys(count, seed=0):
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (2, count, 16), np.uint8), draws.integers(0, 256, 16, np.uint8)


def compared(x, alpha, bits, native):
    roots, key = keys(len(x))
    words = dcf.generate(alpha, bits, roots, key, native=native)
    assert words.shape == (len(x), dcf.word_count(bits), 16)
    shares = [dcf.evaluate(b, x, bits, roots[b], words, key, native=native) for b in (0, 1)]
    return np.unpackbits(shares[0] ^ shares[1], count=len(x), bitorder="little"), words, shares


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 6, 7, 8, 9])
def test_every_input_and_threshold_of_small_domains(bits, native):
    x, alpha = (g.reshape(-1).astype(np.uint64) for g in np.meshgrid(np.arange(1 << bits), np.arange(1 << bits)))
    np.testing.assert_array_equal(compared(x, alpha, bits, native)[0], x < alpha)


@pytest.mark.parametrize("bits", [10, 31, 47, 63])
def test_boundaries_of_large_domains_and_equal_forms(bits):
    near = {abs((1 << i) + d) % (1 << bits) for i in range(bits + 1) for d in (-1, 0, 1)}
    edges = np.array(sorted(near), np.uint64)
    x, alpha = (g.reshape(-1) for g in np.meshgrid(edges, edges))
    got, words, shares = compared(x, alpha, bits, True)
    np.testing.assert_array_equal(got, x < alpha)
    portable = compared(x, alpha, bits, False)
    np.testing.assert_array_equal(words, portable[1])
    np.testing.assert_array_equal(shares, portable[2])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_the_hash_is_the_known_cipher(count):
    """AES-128 of an independent implementation, on random keys."""
    for seed in range(20):
        blocks, key = keys(count, seed)[0][0], keys(1, seed + 100)[1]
        encrypted = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor().update(blocks.tobytes())  # noqa: S305
        right = np.frombuffer(encrypted, np.uint8).reshape(count, 16) ^ blocks
        for native in (True, False):
            np.testing.assert_array_equal(dcf.hashed(blocks, key, native=native), right)


def test_one_key_alone_looks_the_same_for_every_threshold():
    """Bytes of the correction words and a party's own results: uniform for the smallest and the largest threshold."""
    count, bits = 4096, 20
    for value in (0, (1 << bits) - 1):
        roots, key = keys(count, value)
        words = dcf.generate(np.full(count, value, np.uint64), bits, roots, key)
        share = dcf.evaluate(0, np.full(count, 5, np.uint64), bits, roots[0], words, key)
        # 255 degrees of freedom: mean 255, deviation 22.6.
        seen = np.bincount(words.reshape(-1), minlength=256)
        assert ((seen - seen.mean()) ** 2 / seen.mean()).sum() < 255 + 8 * 22.6
        assert abs(int(np.unpackbits(share).sum()) - count / 2) < 8 * np.sqrt(count) / 2


def test_flags_and_the_result_block_are_uniform_too():
    """The three flag bits of every level, for one path: a flag that followed the threshold would give it away."""
    count, bits = 20_000, 10
    roots, key = keys(count, 3)
    words = dcf.generate(np.full(count, 700, np.uint64), bits, roots, key)
    low = np.unpackbits(words[:, :, :1], axis=2, bitorder="little").mean(axis=0)
    assert np.abs(low - 0.5).max() < 8 * 0.5 / np.sqrt(count)


def test_senseless_sizes_are_refused():
    roots, key = keys(3)
    values = np.zeros(3, np.uint64)
    for bits in (0, 64):
        with pytest.raises(ConfigError, match="no such comparison"):
            dcf.generate(values, bits, roots, key)
    words = dcf.generate(values, 9, roots, key)
    with pytest.raises(ConfigError, match="no such evaluation"):
        dcf.evaluate(2, values, 9, roots[0], words, key)
    with pytest.raises(ConfigError, match="no such evaluation"):
        dcf.evaluate(0, values, 10, roots[0], words, key)
