"""The keystream: published vectors, position, independence of how it is drawn, and nothing secret in any text."""

import copy
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError, MissingExtra
from edgeward.core.randomness import SecretBytes
from edgeward.native import prg

pytest.importorskip("cryptography")
KEY = SecretBytes(bytes(range(32)))


@pytest.mark.parametrize(
    ("key", "counter", "start"),
    [  # RFC 8439, appendix A.1, test vectors 1, 2, 3, 4
        (bytes(32), 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"),
        (bytes(32), 1, "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"),
        (bytes(31) + b"\x01", 1, "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"),
        (b"\x00\xff" + bytes(30), 2, "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"),
    ],
)
def test_published_vectors(key, counter, start):
    assert prg.stream(SecretBytes(key), counter=counter).draw(32).tobytes().hex() == start


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=12), st.integers(0, 2**64 - 1))
def test_the_stream_does_not_depend_on_how_it_is_drawn(pieces, nonce):
    whole = prg.stream(KEY, nonce).draw(sum(pieces)).tobytes()
    ours = prg.stream(KEY, nonce)
    assert b"".join(ours.draw(n).tobytes() for n in pieces) == whole


def test_words_and_bits_are_the_bytes_in_little_endian():
    raw = prg.stream(KEY).draw(8 * 70000)
    assert np.array_equal(prg.stream(KEY).uint64(70000), raw.view("<u8"))
    assert np.array_equal(prg.stream(KEY).uint32(140000), raw.view("<u4"))
    assert np.array_equal(prg.stream(KEY).int64(5).view(np.uint64), prg.stream(KEY).uint64(5))
    assert np.array_equal(prg.stream(KEY).int32(5).view(np.uint32), prg.stream(KEY).uint32(5))
    assert prg.stream(KEY).bits(13).tolist() == [int(raw[i // 8]) >> i % 8 & 1 for i in range(13)]
    assert np.array_equal(prg.stream(KEY, counter=3).draw(64), raw[192:256])
    assert prg.stream(KEY).uint64(0).shape == prg.stream(KEY).bits(0).shape == (0,)


def test_keys_nonces_and_labels_separate_streams():
    streams = [prg.stream(KEY), prg.stream(KEY, 1), prg.stream(SecretBytes(bytes(32)))]
    labels = [("a",), ("b",), ("a", "b"), ("ab",), ("1",), (1,), ()]
    streams += [prg.stream(prg.derive(KEY, *path)) for path in labels]
    assert len({s.draw(16).tobytes() for s in streams}) == len(streams)
    assert prg.derive(KEY, "a", 1) == prg.derive(KEY, "a", 1)


def test_bytes_are_uniform_by_chi_square():
    counts = np.bincount(prg.stream(KEY, 9).draw(1 << 20), minlength=256)
    statistic = ((counts - 4096.0) ** 2 / 4096.0).sum()
    assert 170 < statistic < 350  # 255 degrees of freedom: outside with probability below 1e-4, and the key is fixed


def test_the_end_of_the_counter_is_refused_not_wrapped():
    ours = prg.stream(KEY, counter=2**32 - 1)
    assert ours.draw(64).size == 64
    with pytest.raises(ConfigError, match="does not reach"):
        ours.draw(1)


def test_misfits_are_refused():
    for call in (
        lambda: prg.stream(SecretBytes(bytes(16))),
        lambda: prg.stream(KEY, -1),
        lambda: prg.stream(KEY, 2**64),
        lambda: prg.stream(KEY, 0, -1),
        lambda: prg.stream(KEY).uint64(-1),
        lambda: prg.stream(KEY).draw(-1),
        lambda: prg.derive(SecretBytes(b""), "a"),
    ):
        with pytest.raises(ConfigError):
            call()


def test_no_text_or_copy_holds_the_key():
    ours = prg.stream(KEY)
    assert repr(ours) == str(ours) == "Stream(ChaCha20)"
    with pytest.raises(TypeError):
        copy.copy(ours)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(MissingExtra):
        prg.stream(KEY)
