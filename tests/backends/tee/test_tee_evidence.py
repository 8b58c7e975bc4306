"""Evidence: what a verifier accepts, each of its doubts, and tokens of foreign origin."""

from dataclasses import replace

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.backends.tee.evidence import (
    PROFILE,
    Doubt,
    EvidenceError,
    issue,
    measure,
    new_attestation_key,
    public_half,
    verify,
)
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes

PRIVATE, PUBLIC = new_attestation_key()
NONCE, DEVICE = b"n" * 16, b"\x01" + b"d" * 16
EXPECTED = measure(b"application", b"blob", b"\x11" * 32, "wasm")
TOKEN = issue(EXPECTED, NONCE, DEVICE, PRIVATE)


def doubt(token, *, key=PUBLIC, nonce=NONCE, expected=EXPECTED, accept_emulated=True):
    with pytest.raises(EvidenceError) as caught:
        verify(token, key, nonce, expected, accept_emulated=accept_emulated)
    return caught.value.doubt


def test_good_evidence_passes_only_where_emulation_is_accepted():
    assert "emulated" in PROFILE
    found = verify(TOKEN, PUBLIC, NONCE, EXPECTED, accept_emulated=True)
    assert found["device"] == DEVICE.hex()
    assert found["tier"] == "wasm"
    assert found["manifest"] == "11" * 32
    assert doubt(TOKEN, accept_emulated=False) is Doubt.EMULATED
    with pytest.raises(EvidenceError, match="emulated"):
        verify(TOKEN, PUBLIC, NONCE, EXPECTED)
    assert len(TOKEN) < 600


def test_the_claims_are_those_of_the_standard():
    outer = cbor2.loads(TOKEN)
    assert outer.tag == 18
    claims = cbor2.loads(outer.value[2])
    assert claims[10] == NONCE
    assert claims[256] == DEVICE
    assert claims[265] == PROFILE
    ((kind, content),) = claims[273]
    assert kind == 60
    assert set(cbor2.loads(content)) == {"application", "sealed", "manifest", "tier"}


def test_each_doubt():
    assert doubt(TOKEN, nonce=b"m" * 16) is Doubt.NONCE
    assert doubt(TOKEN, key=new_attestation_key()[1]) is Doubt.SIGNATURE
    assert doubt(TOKEN[:-1] + bytes([TOKEN[-1] ^ 1])) is Doubt.SIGNATURE
    assert doubt(b"") is Doubt.MALFORMED
    assert doubt(TOKEN + b"x" * 5000) is Doubt.MALFORMED
    assert doubt(TOKEN + b"x") is Doubt.MALFORMED
    outer = cbor2.loads(TOKEN)
    beside = cbor2.dumps(cbor2.CBORTag(18, [outer.value[0], {4: b"k"}, *outer.value[2:]]))
    assert doubt(beside) is Doubt.MALFORMED
    for name in ("application", "sealed", "manifest", "tier"):
        other = replace(EXPECTED, **{name: "0" * 64})
        with pytest.raises(EvidenceError, match=name):
            verify(TOKEN, PUBLIC, NONCE, other, accept_emulated=True)


def signed(claims, protected=None):
    import cwt

    key = cwt.COSEKey.from_pem(PRIVATE.reveal(), alg="ES256")
    return cwt.COSE.new().encode_and_sign(cbor2.dumps(claims), key, protected=protected or {1: -7})


def test_signed_nonsense_is_refused_too():
    content = cbor2.dumps({"application": "a", "sealed": "b", "manifest": "c", "tier": "d"})
    good = {10: NONCE, 256: DEVICE, 265: PROFILE, 273: [[60, content]]}
    assert doubt(signed({**good, 265: "tag:another,2026:hardware"})) is Doubt.PROFILE
    assert doubt(signed({**good, 265: ["emulated"]})) is Doubt.PROFILE
    assert doubt(signed({**good, 10: None})) is Doubt.NONCE
    assert doubt(signed({**good, 256: 5})) is Doubt.PROFILE
    assert doubt(signed({**good, 273: []})) is Doubt.MALFORMED
    assert doubt(signed({**good, 273: [[60, b"\xff"]]})) is Doubt.MALFORMED
    assert doubt(signed({**good, 273: [[60, cbor2.dumps({"application": "a"})]]})) is Doubt.MALFORMED
    assert doubt(signed([1, 2])) is Doubt.MALFORMED
    assert doubt(signed(good, {1: -7, 3: 61})) is Doubt.MALFORMED


def test_another_algorithm_is_refused():
    import cwt

    shared = cwt.COSEKey.from_symmetric_key(key=PUBLIC[:64], alg="HS256")
    claims = cbor2.dumps({10: NONCE, 256: DEVICE, 265: PROFILE})
    assert doubt(cwt.COSE.new().encode_and_mac(claims, shared, protected={1: 5})) is Doubt.MALFORMED
    unsigned = cbor2.dumps(cbor2.CBORTag(18, [b"\xa1\x01\x26", {}, claims, b""]))
    assert doubt(unsigned) is Doubt.SIGNATURE


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 8 * len(TOKEN) - 1))
def test_any_flipped_bit_is_refused(bit):
    token = bytearray(TOKEN)
    token[bit // 8] ^= 1 << bit % 8
    assert doubt(bytes(token)) in (Doubt.MALFORMED, Doubt.SIGNATURE)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(TOKEN)))
def test_arbitrary_bytes_are_refused_in_our_own_words(noise, at):
    assert doubt(noise) in (Doubt.MALFORMED, Doubt.SIGNATURE)
    assert doubt(TOKEN[:at] + noise + TOKEN[at + 1 :] + b"!") in (Doubt.MALFORMED, Doubt.SIGNATURE)


def test_deep_nesting_is_refused():
    for bomb in (b"\x81" * 4000, b"\xd2" * 4000, b"\xd2\x84\x43\xa1\x01\x26\xa0\x59\x0f\x00" + b"\x81" * 3900):
        assert doubt(bomb) is Doubt.MALFORMED


def test_keys_and_arguments_that_are_none():
    with pytest.raises(ConfigError, match="no attestation key"):
        verify(TOKEN, b"not a key", NONCE, EXPECTED)
    with pytest.raises(ConfigError, match="a nonce of 2 bytes, a device id of 1 bytes"):
        issue(EXPECTED, b"ab", b"x", PRIVATE)
    with pytest.raises(ConfigError):
        public_half(SecretBytes(b"nothing"))
