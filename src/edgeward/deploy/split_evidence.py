"""Evidence over a running split, issued by its device and checked by a verifier who holds the bundle."""

from __future__ import annotations

from collections.abc import Mapping

from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.evidence import NONCE_BYTES, issue, measure, verify
from edgeward.backends.tee.release import RunningSplit, SplitRelease
from edgeward.backends.tee.sealing import KEY_BYTES
from edgeward.backends.tee.tiers import secure_world
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes


def read_nonce(text: str | None) -> bytes:
    """Return a verifier's nonce from its hexadecimal digits.

    >>> read_nonce("00112233445566778899aabbccddeeff").hex()
    '00112233445566778899aabbccddeeff'
    """
    try:
        nonce = bytes.fromhex(text or "")
    except ValueError:
        nonce = b""
    if len(nonce) not in NONCE_BYTES:
        raise ConfigError(
            "evidence needs the verifier's nonce: without one an old token would pass for a new one",
            expected=f"{NONCE_BYTES.start} to {NONCE_BYTES.stop - 1} bytes in hexadecimal, drawn for this question",
            came=repr(text[:80]) if text else "none",
            fix="let the verifier draw one, for instance `openssl rand -hex 16`, and give it to both with --nonce",
        )
    return nonce


def attest(running: RunningSplit, device: DeviceStorage, nonce: bytes) -> bytes:
    """Return a signed token over the open session `running`, in answer to `nonce`.

    Guarantee: as `issue`: whoever lacks the device's attestation key cannot make one. The owner of an emulated device
    has that key.
    """
    key, _ = device.attestation_key()
    return issue(running.measurements(), nonce, device.name(), key)


def check_evidence(
    split: SplitRelease, tier: str, token: bytes, attester: bytes, nonce: bytes, *, accept_emulated: bool = False
) -> Mapping[str, str]:
    """Return what `token` states of a device that should run `split` on `tier`.

    `attester` is the device's public key as PEM, `nonce` what the verifier sent. Guarantee: as `verify` of evidence.
    The application is built here to know its measurement: a device with another compiler has another one, and is
    refused. Raises: `EvidenceError` with the doubt.
    """
    # a world that only builds: no key is needed to know what a build looks like
    application = secure_world(tier, SecretBytes(bytes(KEY_BYTES))).build(split.application()).read_bytes()
    expected = measure(application, split.sealed, split.manifest.digest(), tier)
    return verify(token, attester, nonce, expected, accept_emulated=accept_emulated)
