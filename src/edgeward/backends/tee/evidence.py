"""Evidence: an Entity Attestation Token (EAT) over the trusted application, the sealed weights and the manifest.

A CWT (RFC 8392) in COSE_Sign1 with ES256; claims of RFC 9711: nonce (10), ueid (256), eat_profile (265), measurements
(273). The roles are those of RFC 9334: the device attests, whoever calls `verify` is verifier and relying party.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, final

from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes

PROFILE = "tag:edgeward,2026:emulated-secure-world/1"
"""The only profile there is: an emulated world, whose owner holds the attestation key."""

MAX_TOKEN_BYTES = 4096
NONCE_BYTES = range(8, 65)
_NONCE, _UEID, _PROFILE, _MEASUREMENTS = 10, 256, 265, 273
_CBOR = 60
_PROTECTED = b"\xa1\x01\x26"
_SIGN1 = 18


class Doubt(Enum):
    """Why evidence is not accepted."""

    MALFORMED = "not a token of this form"
    SIGNATURE = "not signed by the given key"
    NONCE = "not an answer to this nonce"
    PROFILE = "of an unknown profile"
    EMULATED = "from an emulated secure world"
    MEASUREMENTS = "of other parts than expected"


class EvidenceError(VerificationFailed):
    """Evidence is refused; `doubt` says why."""

    def __init__(self, doubt: Doubt, expected: str, came: str, fix: str) -> None:
        """Name the doubt, what was expected, what came and what to do."""
        self.doubt = doubt
        super().__init__(f"the evidence is {doubt.value}", expected=expected, came=came, fix=fix)


@final
@dataclass(frozen=True)
class Measurements:
    """SHA-256 of the compiled trusted application, of the sealed weights and of the manifest; the tier that runs
    them.
    """

    application: str
    sealed: str
    manifest: str
    tier: str

    def differences(self, other: Measurements) -> list[str]:
        """Return the names of what differs."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if not hmac.compare_digest(mine[name].encode(), theirs[name].encode())]


def measure(application: bytes, sealed: bytes, manifest_digest: bytes, tier: str) -> Measurements:
    """Return the measurements of a trusted application's file, its sealed weights and its manifest's digest."""
    code, blob = (hashlib.sha256(part).hexdigest() for part in (application, sealed))
    return Measurements(code, blob, manifest_digest.hex(), tier)


def new_attestation_key() -> tuple[SecretBytes, bytes]:
    """Return a fresh P-256 key: the private half as PEM, and the public half as PEM for verifiers."""
    ec = require("cryptography.hazmat.primitives.asymmetric.ec", extra="tee-attest")
    forms = require("cryptography.hazmat.primitives.serialization", extra="tee-attest")
    key = ec.generate_private_key(ec.SECP256R1())
    private = SecretBytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    return private, public_half(private)


def public_half(key: SecretBytes) -> bytes:
    """Return the public half of a private key, as PEM."""
    forms = require("cryptography.hazmat.primitives.serialization", extra="tee-attest")
    try:
        public = forms.load_pem_private_key(key.reveal(), None).public_key()
    except (ValueError, TypeError):
        raise ConfigError("this is no attestation key", expected="a private key as PEM", came="other bytes") from None
    return bytes(public.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))


def issue(measurements: Measurements, nonce: bytes, device: bytes, key: SecretBytes) -> bytes:
    """Return a signed token: `nonce` from the verifier (8 to 64 bytes), `device` a stable id (7 to 33 bytes).

    Guarantee: whoever lacks `key` cannot make a token for another nonce or other measurements (ECDSA, assumed). In an
    emulated world the device's owner has the key and can sign anything: the profile says so, and `verify` refuses it
    unless told otherwise.
    """
    problems = [f"a nonce of {len(nonce)} bytes"] if len(nonce) not in NONCE_BYTES else []
    problems += [f"a device id of {len(device)} bytes"] if not 7 <= len(device) <= 33 else []
    if problems:
        expected = "a nonce of 8 to 64 bytes and a device id of 7 to 33 bytes"
        raise ConfigError("this cannot be attested", expected=expected, came=", ".join(problems))
    cwt, cbor2 = require("cwt", extra="tee-attest"), require("cbor2", extra="tee-attest")
    content = cbor2.dumps(asdict(measurements), canonical=True)
    claims = {_NONCE: nonce, _UEID: device, _PROFILE: PROFILE, _MEASUREMENTS: [[_CBOR, content]]}
    signed = cwt.COSE.new(alg_auto_inclusion=False).encode_and_sign(
        cbor2.dumps(claims, canonical=True), cwt.COSEKey.from_pem(key.reveal(), alg="ES256"), protected={1: -7}
    )
    return bytes(signed)


def verify(
    token: bytes, public_key: bytes, nonce: bytes, expected: Measurements, *, accept_emulated: bool = False
) -> Mapping[str, str]:
    """Check a token of foreign origin and return its device id, profile and measurements as text.

    `public_key` is the attester's PEM, `nonce` what was sent to it, `expected` what should run there. Guarantee: a
    token that passes was signed by the key's holder for this nonce and these measurements. It says nothing about the
    holder: an emulated world is refused unless `accept_emulated`. Raises: `EvidenceError` with the doubt;
    `ConfigError` for a key that is none.
    """
    claims = _claims(token, public_key)
    again = "ask the device for new evidence"
    if not isinstance(claims.get(_NONCE), bytes) or not hmac.compare_digest(claims[_NONCE], nonce):
        raise EvidenceError(Doubt.NONCE, "the nonce that was sent", "another one", again)
    profile, device = claims.get(_PROFILE), claims.get(_UEID)
    if profile != PROFILE or not isinstance(device, bytes):
        raise EvidenceError(Doubt.PROFILE, PROFILE, repr(profile)[:100], "use a verifier that knows this profile")
    if not accept_emulated:
        fix = "use a device with a hardware root of trust, or pass accept_emulated=True for a test"
        raise EvidenceError(Doubt.EMULATED, "evidence that the device's owner cannot forge", profile, fix)
    found = _measurements(claims.get(_MEASUREMENTS))
    wrong = found.differences(expected)
    if wrong:
        fix = "install the deployment again, or expect what was really installed"
        raise EvidenceError(Doubt.MEASUREMENTS, "the expected digests", f"others for: {', '.join(wrong)}", fix)
    return {"device": device.hex(), "profile": profile, **asdict(found)}


def _claims(token: bytes, public_key: bytes) -> dict[Any, Any]:
    """Return the claims of a token whose form and signature are right."""
    cwt, cbor2 = require("cwt", extra="tee-attest"), require("cbor2", extra="tee-attest")
    try:
        key = cwt.COSEKey.from_pem(public_key, alg="ES256")
    except Exception as error:
        expected = "a P-256 public key as PEM"
        raise ConfigError("this is no attestation key", expected=expected, came=type(error).__name__) from None
    bad = "at most 4096 bytes: COSE_Sign1, ES256, claims of an EAT"
    again = "ask the device for new evidence"
    if len(token) > MAX_TOKEN_BYTES:
        raise EvidenceError(Doubt.MALFORMED, bad, f"{len(token)} bytes", again)
    # Foreign bytes go through two parsers; whatever they raise, it is the token that is wrong.
    try:
        outer = cbor2.loads(token)
        parts: Any = outer.value if isinstance(outer, cbor2.CBORTag) and outer.tag == _SIGN1 else ()
        if len(parts) != 4 or parts[0] != _PROTECTED or type(parts[2]) is not bytes:
            raise ValueError("not COSE_Sign1 with ES256")
        # one token, one encoding: nothing before, behind or unsigned beside the claims
        if cbor2.dumps(cbor2.CBORTag(_SIGN1, [_PROTECTED, {}, parts[2], parts[3]])) != token:
            raise ValueError("not in its one encoding")
        claims = cbor2.loads(parts[2])
        if not isinstance(claims, dict):
            raise ValueError("the claims are not a map")
    except Exception as error:
        raise EvidenceError(Doubt.MALFORMED, bad, f"{type(error).__name__}", again) from None
    try:
        cwt.COSE.new().decode(token, key)
    except Exception:
        raise EvidenceError(Doubt.SIGNATURE, "a signature of the given key", "none that it confirms", again) from None
    return claims


def _measurements(claim: Any) -> Measurements:
    """Return the measurements of a claim of foreign origin."""
    cbor2 = require("cbor2", extra="tee-attest")
    try:
        ((kind, content),) = claim
        plain = cbor2.loads(content) if kind == _CBOR else None
        if not isinstance(plain, dict) or not all(isinstance(text, str) for text in plain.values()):
            raise ValueError("not a map of texts")
        return Measurements(**plain)
    except Exception as error:
        expected, fix = "one measurement of each part", "ask the device for new evidence"
        raise EvidenceError(Doubt.MALFORMED, expected, type(error).__name__, fix) from None
