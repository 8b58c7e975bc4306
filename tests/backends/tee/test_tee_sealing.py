"""Sealed blobs, rollback counters and device storage: what opens, what is refused and why, and what never shows."""

import os
import pickle

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.rollback import RollbackCounter
from edgeward.backends.tee.sealing import (
    ENVELOPE_BYTES,
    HEADER_BYTES,
    Opened,
    Refusal,
    SealedBlobError,
    new_key,
    open_sealed,
    seal,
)
from edgeward.core.errors import ConfigError, EdgewardError, VerificationFailed
from edgeward.core.randomness import SecretBytes

KEY = SecretBytes(bytes(range(32)))
DIGEST, OTHER = b"\x11" * 32, b"\x22" * 32
PLAIN = b"weights of a monitor" * 20
BLOB = seal(PLAIN, KEY, DIGEST, 7)


def refused(blob, *, key=KEY, digest=DIGEST, floor=0):
    with pytest.raises(SealedBlobError) as caught:
        open_sealed(blob, key, digest, floor)
    return caught.value.reason


def test_what_was_sealed_opens_with_its_counter():
    assert open_sealed(BLOB, KEY, DIGEST, 7) == Opened(PLAIN, 0, 7)
    assert open_sealed(seal(b"", KEY, DIGEST, 2**64 - 1), KEY, DIGEST, 0) == Opened(b"", 0, 2**64 - 1)
    assert len(BLOB) == len(PLAIN) + ENVELOPE_BYTES == len(PLAIN) + 64 + 8 + 16


def test_the_layout_is_the_documented_one():
    assert BLOB[:8] == b"EWSB\x02\x00\x40\x00"
    assert int.from_bytes(BLOB[8:16], "little") == 7
    assert BLOB[16:48] == DIGEST
    assert int.from_bytes(BLOB[60:64], "little") == len(PLAIN) + 8
    data = DIGEST + (7).to_bytes(8, "little")
    assert AESGCM(bytes(range(32))).decrypt(BLOB[48:60], BLOB[64:], data) == PLAIN + bytes(8)


def test_a_query_limit_is_sealed_with_the_content():
    limited = seal(PLAIN, KEY, DIGEST, 7, 1000)
    assert open_sealed(limited, KEY, DIGEST, 0) == Opened(PLAIN, 1000, 7)
    for wrong in (0, -1, 2**64):
        with pytest.raises(ConfigError, match="limit queries"):
            seal(PLAIN, KEY, DIGEST, 7, wrong)


def test_nonces_are_fresh():
    assert len({seal(PLAIN, KEY, DIGEST, 7)[48:60] for _ in range(200)}) == 200


def test_each_reason():
    assert refused(b"") is Refusal.TRUNCATED
    assert refused(BLOB[:-1]) is Refusal.TRUNCATED
    assert refused(BLOB + b"x") is Refusal.TRUNCATED
    assert refused(b"PK" + BLOB[2:]) is Refusal.UNKNOWN_FORMAT
    assert refused(BLOB[:4] + b"\x03" + BLOB[5:]) is Refusal.UNKNOWN_FORMAT
    assert refused(BLOB, digest=OTHER) is Refusal.FOREIGN_MANIFEST
    assert refused(BLOB, floor=8) is Refusal.OLDER_COUNTER
    assert refused(BLOB, key=new_key()) is Refusal.TAMPERED


def test_a_header_cannot_be_moved_to_another_manifest_or_counter():
    assert refused(BLOB[:16] + OTHER + BLOB[48:], digest=OTHER) is Refusal.TAMPERED
    assert refused(BLOB[:8] + (9).to_bytes(8, "little") + BLOB[16:], floor=8) is Refusal.TAMPERED


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * len(BLOB) - 1))
def test_any_flipped_bit_is_refused(bit):
    blob = bytearray(BLOB)
    blob[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(blob)) in set(Refusal)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(blob):
    assert refused(blob) in set(Refusal)
    assert refused(BLOB[:HEADER_BYTES] + blob) in set(Refusal)


def test_no_message_holds_key_or_content():
    secret = KEY.reveal()
    for attempt in (BLOB[:-1], BLOB[:-2] + b"xx", seal(PLAIN, new_key(), DIGEST, 7)):
        with pytest.raises(SealedBlobError) as caught:
            open_sealed(attempt, KEY, DIGEST, 0)
        text = str(caught.value) + repr(caught.value)
        assert secret.hex() not in text
        assert repr(secret) not in text
        assert "weights of a monitor" not in text


def test_keys_and_digests_of_the_wrong_length_are_one_error():
    with pytest.raises(ConfigError, match=r"key of 3 bytes, a manifest digest of 1 bytes, counter -1"):
        seal(PLAIN, SecretBytes(b"abc"), b"x", -1)


def test_secret_bytes_do_not_leak_by_printing_or_pickling():
    key = SecretBytes.draw(32)
    assert len(key) == 32
    assert key.reveal() not in repr(key).encode()
    assert f"{key}" == "SecretBytes(32 bytes)"
    assert key == SecretBytes(key.reveal())
    assert key != SecretBytes.draw(32)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        hash(key)


def test_a_counter_only_grows_and_is_durable(tmp_path):
    path = tmp_path / "demo.counter"
    counter = RollbackCounter(path, KEY, "demo")
    assert counter.floor() == 0
    counter.advance(3)
    counter.advance(3)
    assert RollbackCounter(path, KEY, "demo").floor() == 3
    with pytest.raises(ConfigError, match="only grows"):
        counter.advance(2)
    assert [p.name for p in tmp_path.iterdir()] == ["demo.counter"]


def test_an_altered_counter_is_refused(tmp_path):
    path = tmp_path / "demo.counter"
    RollbackCounter(path, KEY, "demo").advance(5)
    good = path.read_bytes()
    for bad in (b"", good[:-1], good + b"x", good[:8] + b"\x00" * 8 + good[16:]):
        path.write_bytes(bad)
        with pytest.raises(VerificationFailed, match="counter was altered"):
            RollbackCounter(path, KEY, "demo").floor()
    path.write_bytes(good)
    for key, application in ((new_key(), "demo"), (KEY, "other")):
        with pytest.raises(VerificationFailed):
            RollbackCounter(path, key, application).floor()


def test_device_storage_makes_its_secrets_once_and_for_its_owner_alone(tmp_path):
    device = DeviceStorage(tmp_path / "device")
    key, (private, public) = device.key(), device.attestation_key()
    again = DeviceStorage(tmp_path / "device")
    assert again.key() == key
    assert again.attestation_key() == (private, public)
    assert public.startswith(b"-----BEGIN PUBLIC KEY")
    for name in ("sealing.key", "attestation.key"):
        assert os.stat(tmp_path / "device" / name).st_mode & 0o777 == 0o600
    assert DeviceStorage(tmp_path / "another").key() != key
    assert sorted(p.name for p in (tmp_path / "device").iterdir()) == [
        "attestation.key",
        "attestation.pem",
        "sealing.key",
    ]


def test_a_damaged_device_is_named(tmp_path):
    device = DeviceStorage(tmp_path)
    (tmp_path / "sealing.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"'sealing\.key' is damaged"):
        device.key()
    (tmp_path / "attestation.key").write_bytes(b"short")
    with pytest.raises(EdgewardError, match="no attestation key"):
        device.attestation_key()
    with pytest.raises(ConfigError, match="cannot name an application"):
        device.counter("../x")
