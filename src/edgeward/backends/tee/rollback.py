"""`RollbackCounter`: the lowest counter a secure world still accepts, kept beside it on the device."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import final

from edgeward.backends.tee.sealing import LARGEST_COUNTER
from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.core.randomness import SecretBytes

_MAGIC = b"EWRC\x01\x00\x00\x00"
_LENGTH = len(_MAGIC) + 8 + 32


@final
class RollbackCounter:
    """A counter in a file of the device's secure storage, authenticated with HMAC-SHA-256 under the sealing key.

    Guarantee: whoever lacks the key cannot set a value the secure world never wrote (HMAC, assumed). NOT against
    whoever can put back an older copy of the file, or remove it: an emulated world has no storage that its owner cannot
    turn back. Not for several processes at once: the later `advance` wins. A device needs replay-protected storage (an
    RPMB partition, a fuse, a monotonic counter of a TPM) behind the same two calls.
    """

    def __init__(self, path: Path, key: SecretBytes, application: str) -> None:
        """Keep the counter of `application` at `path`; the file appears at the first `advance`."""
        self._path = path
        self._key = SecretBytes(hmac.new(key.reveal(), b"edgeward rollback counter", hashlib.sha256).digest())
        self._application = application.encode()

    def floor(self) -> int:
        """Return the lowest accepted counter; 0 where nothing was ever installed. Raises: `VerificationFailed`."""
        try:
            stored = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        if len(stored) != _LENGTH or not hmac.compare_digest(stored[-32:], self._tag(stored[:-32])):
            raise VerificationFailed(
                "the rollback counter was altered",
                expected="a counter written by this device for this application",
                came=f"{len(stored)} bytes that its key does not confirm",
                fix="install the application anew on a device you trust",
            )
        return int.from_bytes(stored[len(_MAGIC) : len(_MAGIC) + 8], "little")

    def advance(self, counter: int) -> None:
        """Raise the floor to `counter`, which must not be lower than it; durable when this returns."""
        floor = self.floor()
        if not floor <= counter <= LARGEST_COUNTER:
            expected = f"{floor} to {LARGEST_COUNTER}"
            raise ConfigError("a rollback counter only grows", expected=expected, came=str(counter))
        body = _MAGIC + counter.to_bytes(8, "little")
        partial = self._path.with_name(self._path.name + ".partial")
        with partial.open("wb") as file:
            file.write(body + self._tag(body))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)
        _settle(self._path.parent)

    def _tag(self, body: bytes) -> bytes:
        return hmac.new(self._key.reveal(), body + self._application, hashlib.sha256).digest()


def _settle(folder: Path) -> None:
    """Make a new name in `folder` survive a loss of power, where the system lets folders be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
