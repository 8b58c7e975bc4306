"""A stream of pseudorandom words from a secret key: two holders of the key draw the same, nobody else can tell it."""

from __future__ import annotations

import hashlib
import hmac
from typing import final

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32, UInt64

from edgeward.core.errors import ConfigError
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes

KEY_BYTES = 32
_BLOCK = 64
_PIECE = 1 << 16
EXTRA = "mpc"


def derive(key: SecretBytes, *labels: str | int) -> SecretBytes:
    """Return the 32-byte key for the purpose named by `labels`: HMAC-SHA256, one key never tells another (assumed).

    Labels are framed by type and length, so that no two lists of labels name one key.
    """
    _key(key)
    parts = [(b"i" if isinstance(label, int) else b"s") + str(label).encode() for label in labels]
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return SecretBytes(hmac.new(key.reveal(), b"edgeward prg\0" + framed, hashlib.sha256).digest())


def stream(key: SecretBytes, nonce: int = 0, counter: int = 0) -> Stream:
    """Return the ChaCha20 stream of `key` (32 bytes) and `nonce` (64 bits), from its 64-byte block `counter` on.

    Guarantee: without the key the stream looks uniform to every efficient observer (assumed of ChaCha20, RFC 8439; the
    layout here is the original one: 64-bit counter, 64-bit nonce). It is a function of key, nonce and counter alone.
    A stream that masks secrets must not be used twice: give every purpose its own nonce or `derive` it a key.
    Errors: `ConfigError` for a wrong key or nonce, `MissingExtra` without the `cryptography` package.
    """
    return Stream(key, nonce, counter)


@final
class Stream:
    """A place in a keystream; every draw moves it on. See `stream`."""

    __slots__ = ("_cipher", "_left")

    def __init__(self, key: SecretBytes, nonce: int, counter: int) -> None:
        """Start at block `counter`."""
        _key(key)
        if not 0 <= nonce < 2**64 or not 0 <= counter < 2**64:
            raise ConfigError("no such place", expected="nonce and counter in [0, 2^64)", came=f"{nonce}, {counter}")
        ciphers = require("cryptography.hazmat.primitives.ciphers", extra=EXTRA)
        start = counter.to_bytes(8, "little") + nonce.to_bytes(8, "little")
        self._cipher = ciphers.Cipher(ciphers.algorithms.ChaCha20(key.reveal(), start), mode=None).encryptor()
        # OpenSSL counts blocks in 32 bits and `cryptography` refuses to pass 2^32: this bound says so before a draw.
        self._left = (2**32 - counter % 2**32) * _BLOCK

    def draw(self, count: int) -> UInt8[np.ndarray, " count"]:
        """Return the next `count` bytes."""
        if not 0 <= count <= self._left:
            raise ConfigError(
                "the stream does not reach that far",
                expected=f"0 to {self._left} bytes (a stream ends at a multiple of 2^32 blocks)",
                came=f"{count} bytes",
                fix="go on with another nonce",
            )
        self._left -= count
        # Zeros encrypted in place are the keystream; the cipher works in pieces, so that they stay in the cache.
        out = np.zeros(count, np.uint8)
        view = out.data
        for start in range(0, count, _PIECE):
            piece = view[start : start + _PIECE]
            self._cipher.update_into(piece, piece)
        return out

    def uint64(self, count: int) -> UInt64[np.ndarray, " count"]:
        """Return `count` uniform 64-bit words (8 bytes each, little endian)."""
        return self.draw(8 * _count(count)).view("<u8").astype(np.uint64, copy=False)

    def uint32(self, count: int) -> UInt32[np.ndarray, " count"]:
        """Return `count` uniform 32-bit words (4 bytes each, little endian)."""
        return self.draw(4 * _count(count)).view("<u4").astype(np.uint32, copy=False)

    def int64(self, count: int) -> Int64[np.ndarray, " count"]:
        """Return `count` uniform elements of Z_2^64 in the signed form that PyTorch computes with."""
        return self.uint64(count).view(np.int64)

    def int32(self, count: int) -> Int32[np.ndarray, " count"]:
        """Return `count` uniform elements of Z_2^32 in the signed form that PyTorch computes with."""
        return self.uint32(count).view(np.int32)

    def bits(self, count: int) -> UInt8[np.ndarray, " count"]:
        """Return `count` uniform bits, each 0 or 1, from ceil(count / 8) bytes; for packed bits draw `uint64`."""
        return np.unpackbits(self.draw((_count(count) + 7) // 8), bitorder="little", count=count)

    def __repr__(self) -> str:
        """Return the kind, never the key or the place."""
        return "Stream(ChaCha20)"

    def __reduce__(self) -> str:
        """Refuse to be copied into a file."""
        raise TypeError("a stream holds a secret key and is not written to files")


def _key(key: SecretBytes) -> None:
    if len(key) != KEY_BYTES:
        raise ConfigError("no key of a stream", expected=f"{KEY_BYTES} secret bytes", came=f"{len(key)} bytes")


def _count(count: int) -> int:
    if count < 0:
        raise ConfigError("no such number of draws", expected="0 or more", came=str(count))
    return count
