"""Sealed blobs: weights and their query limit under AES-256-GCM, bound to one manifest and to a rollback counter.

Layout, little endian: magic "EWSB" (4), version 2 (2), header bytes 64 (2), counter (8), manifest digest (32), nonce
(12), ciphertext bytes (4); then the ciphertext (the weights, then the query limit: 8 bytes) and its tag (16).
Associated data is manifest digest || counter, so that a header altered in those two fields opens nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any, final

from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes, SecretRandomness

MAGIC, VERSION = b"EWSB", 2
KEY_BYTES, NONCE_BYTES, TAG_BYTES, DIGEST_BYTES = 32, 12, 16, 32
LARGEST_PLAINTEXT = 1 << 30
LARGEST_COUNTER = (1 << 64) - 1

_HEADER = struct.Struct("<4sHHQ32s12sI")
HEADER_BYTES = _HEADER.size
_LIMIT = struct.Struct("<Q")
ENVELOPE_BYTES = HEADER_BYTES + _LIMIT.size + TAG_BYTES
"""What a sealed blob has on top of the weights; it is opened in place, so that it lies in secure memory once."""


class Refusal(Enum):
    """Why a sealed blob was not opened."""

    TRUNCATED = "truncated or of another length than its header says"
    UNKNOWN_FORMAT = "not a sealed blob of a version this release knows"
    FOREIGN_MANIFEST = "sealed for another manifest"
    OLDER_COUNTER = "older than the rollback counter allows"
    TAMPERED = "altered, or sealed with another key"


class SealedBlobError(VerificationFailed):
    """A sealed blob is refused; `reason` says why, and no text holds key or content."""

    def __init__(self, reason: Refusal, expected: str, came: str, fix: str) -> None:
        """Name the reason, what was expected, what came and what to do."""
        self.reason = reason
        super().__init__(f"the sealed blob is {reason.value}", expected=expected, came=came, fix=fix)


@final
@dataclass(frozen=True)
class SealedHeader:
    """The clear part of a sealed blob; trustworthy only once the blob was opened."""

    counter: int
    manifest_digest: bytes
    nonce: bytes
    ciphertext_bytes: int


@final
@dataclass(frozen=True)
class Opened:
    """What an authentic blob held: the content, how many inferences it allows (0: any number), and its counter."""

    content: bytes
    query_limit: int
    counter: int


def new_key() -> SecretBytes:
    """Return a fresh 256-bit key from the operating system's generator."""
    return SecretBytes.draw(KEY_BYTES)


def seal(
    plaintext: bytes, key: SecretBytes, manifest_digest: bytes, counter: int, query_limit: int | None = None
) -> bytes:
    """Return `plaintext` encrypted and authenticated under `key`, bound to `manifest_digest` (32 bytes) and `counter`.

    `query_limit` is how many inferences the secure world answers with these weights; None for any number.

    Guarantee: AES-256-GCM (assumed secure) with a fresh random 96-bit nonce; seal fewer than 2^32 blobs with one key.
    The length of the plaintext shows. Cost: `ENVELOPE_BYTES` on top. Raises: `ConfigError`.
    """
    _check(key, manifest_digest, counter)
    if query_limit is not None and not 0 < query_limit <= LARGEST_COUNTER:
        fix = "leave the limit out to allow any number of inferences"
        raise ConfigError("this cannot limit queries", expected="a count from 1", came=str(query_limit), fix=fix)
    if len(plaintext) > LARGEST_PLAINTEXT:
        raise ConfigError("the blob is too large to seal", expected="at most 1 GiB", came=f"{len(plaintext)} bytes")
    nonce, content = SecretRandomness().bytes(NONCE_BYTES), plaintext + _LIMIT.pack(query_limit or 0)
    ciphertext = _cipher(key).encrypt(nonce, content, associated_data(manifest_digest, counter))
    header = _HEADER.pack(MAGIC, VERSION, HEADER_BYTES, counter, manifest_digest, nonce, len(content))
    return bytes(header + ciphertext)


def open_sealed(blob: bytes, key: SecretBytes, manifest_digest: bytes, counter_floor: int) -> Opened:
    """Return what is in a blob sealed for `manifest_digest` with a counter of at least `counter_floor`.

    Guarantee: whoever lacks the key cannot make a blob that opens, nor move one to another manifest or counter
    (AES-256-GCM, assumed secure). Nothing of the plaintext is returned unless the whole blob is authentic.
    Raises: `SealedBlobError` with the reason.
    """
    _check(key, manifest_digest, counter_floor)
    header = read_header(blob)
    again = "seal the weights for this deployment, or fetch the blob again"
    if header.manifest_digest != manifest_digest:
        raise SealedBlobError(
            Refusal.FOREIGN_MANIFEST,
            _short(manifest_digest),
            _short(header.manifest_digest),
            "use the blob's own bundle",
        )
    if header.counter < counter_floor:
        fix = "install the newest release of the blob"
        raise SealedBlobError(Refusal.OLDER_COUNTER, f"at least {counter_floor}", str(header.counter), fix)
    from cryptography.exceptions import InvalidTag

    try:
        data = associated_data(manifest_digest, header.counter)
        content = _cipher(key).decrypt(header.nonce, blob[HEADER_BYTES:], data)
    except InvalidTag:
        expected = "the authentication tag of this key"
        raise SealedBlobError(Refusal.TAMPERED, expected, "another tag", again) from None
    return Opened(content[: -_LIMIT.size], _LIMIT.unpack(content[-_LIMIT.size :])[0], header.counter)


def read_header(blob: bytes) -> SealedHeader:
    """Return the clear header of a blob of foreign origin. Raises: `SealedBlobError` for length and format."""
    fix = "fetch the blob again"
    if len(blob) < ENVELOPE_BYTES:
        expected = f"at least {ENVELOPE_BYTES} bytes"
        raise SealedBlobError(Refusal.TRUNCATED, expected, f"{len(blob)} bytes", fix)
    magic, version, length, counter, digest, nonce, count = _HEADER.unpack_from(blob)
    if (magic, version, length) != (MAGIC, VERSION, HEADER_BYTES):
        came = f"magic {magic!r}, version {version}, header of {length} bytes"
        raise SealedBlobError(Refusal.UNKNOWN_FORMAT, f"magic {MAGIC!r}, version {VERSION}", came, fix)
    if count < _LIMIT.size or len(blob) != HEADER_BYTES + count + TAG_BYTES:
        expected = f"{HEADER_BYTES + count + TAG_BYTES} bytes"
        raise SealedBlobError(Refusal.TRUNCATED, expected, f"{len(blob)} bytes", fix)
    return SealedHeader(counter, digest, nonce, count)


def associated_data(manifest_digest: bytes, counter: int) -> bytes:
    """Return what the tag covers beside the content: manifest digest || counter as 8 bytes, little endian."""
    return manifest_digest + counter.to_bytes(8, "little")


def _check(key: SecretBytes, manifest_digest: bytes, counter: int) -> None:
    problems = [f"a key of {len(key)} bytes"] if len(key) != KEY_BYTES else []
    problems += [f"a manifest digest of {len(manifest_digest)} bytes"] if len(manifest_digest) != DIGEST_BYTES else []
    problems += [f"counter {counter}"] if not 0 <= counter <= LARGEST_COUNTER else []
    if problems:
        expected = "a key and a SHA-256 digest of 32 bytes each, and a counter of 64 bits"
        raise ConfigError("these cannot seal or open a blob", expected=expected, came=", ".join(problems))


def _cipher(key: SecretBytes) -> Any:
    return require("cryptography.hazmat.primitives.ciphers.aead", extra="tee-emul").AESGCM(key.reveal())


def _short(digest: bytes) -> str:
    return f"manifest {digest.hex()[:16]}..."
