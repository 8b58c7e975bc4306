"""`DeviceStorage`: what an emulated device keeps for its secure world: the sealing key and rollback counters."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import final

from edgeward.backends.tee.rollback import RollbackCounter
from edgeward.backends.tee.sealing import KEY_BYTES, new_key
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes

KEY_FILE, ATTESTATION_FILE, ATTESTER_FILE = "sealing.key", "attestation.key", "attestation.pem"
_APPLICATION = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@final
class DeviceStorage:
    """A folder that stands for the secure storage of one device.

    Guarantee: the key file is readable by its owner alone and made once; NOT a secret from that owner or from root. A
    device derives its key from a hardware unique key and keeps counters in replay-protected storage.
    """

    notice = "emulated secure storage: whoever may read this folder can read the key"

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made where it is missing."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def key(self) -> SecretBytes:
        """Return the device's sealing key, drawn from the operating system at the first call. Raises: `ConfigError`."""
        return self._kept(KEY_FILE, new_key, KEY_BYTES)

    def attestation_key(self) -> tuple[SecretBytes, bytes]:
        """Return the device's attestation key: the private half, made at the first call, and the public half as PEM."""
        from edgeward.backends.tee.evidence import new_attestation_key, public_half

        key = self._kept(ATTESTATION_FILE, lambda: new_attestation_key()[0])
        public = public_half(key)
        (self._folder / ATTESTER_FILE).write_bytes(public)
        return key, public

    def name(self) -> bytes:
        """Return 17 bytes that evidence calls this device by: a digest of its public attestation key."""
        return b"\x01" + hashlib.sha256(self.attestation_key()[1]).digest()[:16]

    def counter(self, application: str) -> RollbackCounter:
        """Return the rollback counter of the deployment whose manifest has the identity `application`."""
        if not _APPLICATION.fullmatch(application):
            expected = "lower-case letters, digits, '.', '_' and '-', at most 100"
            raise ConfigError("this cannot name an application", expected=expected, came=repr(application)[:120])
        return RollbackCounter(self._folder / f"{application}.counter", self.key(), application)

    def asked(self, identity: str) -> RollbackCounter:
        """Return the count of inferences of the deployment called `identity`, for weights with a query limit."""
        self.counter(identity)  # a name that is none is refused there
        return RollbackCounter(self._folder / f"{identity}.asked", self.key(), f"{identity} asked")

    def _kept(self, name: str, make: Callable[[], SecretBytes], length: int | None = None) -> SecretBytes:
        """Return the secret in the file called `name`; `make` gives it where there is none yet."""
        path = self._folder / name
        if path.exists():
            return _read(path, length)
        # a name that nobody can have put there before, so that the secret goes into a file of this process
        partial = self._folder / f"{name}.{secrets.token_hex(8)}.partial"
        secret = make()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
                file.write(secret.reveal())
                file.flush()
                os.fsync(file.fileno())
            # a link fails where another process was first, so that both use one secret
            os.link(partial, path)
        except FileExistsError:
            return _read(path, length)
        finally:
            partial.unlink(missing_ok=True)
        return secret


def _read(path: Path, length: int | None) -> SecretBytes:
    content = path.read_bytes()
    if not content or len(content) != (length or len(content)):
        raise ConfigError(
            f"the device's '{path.name}' is damaged",
            expected=f"{length or 'some'} bytes",
            came=f"{len(content)} bytes",
            fix="remove the device's folder and install the deployment again",
        )
    return SecretBytes(content)
