"""Sealed records in files: secret, unaltered, in their place, and gone once they are taken."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, final

from edgeward.core.errors import ConfigError, EdgewardError
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes

KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 12, 16
_LENGTH = struct.Struct("<Q")
_PURPOSE = b"edgeward sealed material 2\0"


class StoreError(EdgewardError):
    """Material on disk cannot be written or cannot be used; nothing of it was given out."""

    exit_code = 1


@final
class Sealing:
    """AES-256-GCM under the key in one file, for records that know where they belong.

    Guarantee: against who reads, alters, exchanges or cuts the files without the key file: what is stored stays
    secret, and what was not written for its place is refused, as is a file that lacks its end (assumed of AES-GCM;
    random nonces, so at most 2^32 records per key). Whoever may read the key file, root of this machine included, may
    read all.
    """

    def __init__(self, key: SecretBytes) -> None:
        """Seal under `key`."""
        module: Any = require("cryptography.hazmat.primitives.ciphers.aead", extra="mpc")
        self._cipher = module.AESGCM(key.reveal())

    def seal(self, content: bytes, place: bytes) -> bytes:
        """Return `content` sealed for `place`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + bytes(self._cipher.encrypt(nonce, content, _PURPOSE + place))

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return what was sealed for `place`. Raises: `StoreError`."""
        exceptions: Any = require("cryptography.exceptions", extra="mpc")
        try:
            return bytes(self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE + place))
        except (exceptions.InvalidTag, ValueError):
            raise StoreError(
                "sealed material is not what was written here",
                expected="a file of this folder, written with its key",
                came="altered, cut short or foreign bytes",
                fix="delete the folder at both parties and have the dealer deal anew",
            ) from None


def kept_key(path: Path) -> SecretBytes:
    """Return the key in the file `path`, drawn from the operating system's generator where there is none.

    Raises: `StoreError` for a file that others may read or that is no key.
    """
    with explained(path):
        if not path.exists():
            draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            try:
                _write(draft, SecretBytes.draw(KEY_BYTES).reveal())
                # A link fails where another process was first, whose key is then the one to use.
                with contextlib.suppress(FileExistsError):
                    os.link(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            _sync(path.parent)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StoreError(f"'{path}' can be read by others", expected="mode 600", fix=f"chmod 600 '{path}'")
        content = path.read_bytes()
    if len(content) != KEY_BYTES:
        raise StoreError(f"'{path}' is no key", expected=f"{KEY_BYTES} bytes", came=f"{len(content)} bytes")
    return SecretBytes(content)


@final
class SealedWriter:
    """A file of sealed records that exists whole or not at all: it gets its name when the block ends without error.

    Raises: `StoreError`, for instance when the disk is full; then nothing is left of it.
    """

    def __init__(self, path: Path, sealing: Sealing, place: bytes) -> None:
        """Write records for `place` to a draft beside `path`."""
        self._path, self._sealing, self._place, self._count = path, sealing, place, 0
        self._draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._file: BinaryIO | None = None

    def append(self, content: bytes) -> None:
        """Seal one more record."""
        with explained(self._path):
            if self._file is None:
                raise ConfigError("this writer is not open", fix="use it in a `with` block")
            self._put(self._file, content, _numbered(self._place, self._count))
            self._count += 1

    def __enter__(self) -> SealedWriter:
        """Open the draft."""
        with explained(self._path):
            self._file = os.fdopen(os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or remove the draft."""
        file, self._file = self._file, None
        try:
            with explained(self._path), contextlib.suppress(*([OSError] if kind else [])):
                if file is not None:
                    try:
                        if kind is None:
                            self._put(file, b"", _ended(self._place, self._count))
                        file.flush()
                        os.fsync(file.fileno())
                    finally:
                        with contextlib.suppress(OSError):
                            file.close()
                    if kind is None:
                        self._draft.rename(self._path)
                        _sync(self._path.parent)
        finally:
            self._draft.unlink(missing_ok=True)

    def _put(self, file: BinaryIO, content: bytes, place: bytes) -> None:
        sealed = self._sealing.seal(content, place)
        file.write(_LENGTH.pack(len(sealed)) + sealed)


def taken_records(path: Path, sealing: Sealing, place: bytes) -> Iterator[bytes]:
    """Delete the file `path`, then return its records one after the other; nobody can take them again.

    The name is gone from the disk before the first record is out: a crash loses the material and never repeats it.
    Raises: `StoreError` when it was taken before, also by another process at the same moment.
    """
    with explained(path):
        file = path.open("rb")
        try:
            path.unlink()
            _sync(path.parent)
        except BaseException:
            file.close()
            raise
    return _records(file, sealing, place)


def read_records(path: Path, sealing: Sealing, place: bytes) -> list[bytes]:
    """Return all records of a file that stays. Raises: `StoreError`."""
    with explained(path):
        return list(_records(path.open("rb"), sealing, place))


def _records(file: BinaryIO, sealing: Sealing, place: bytes) -> Iterator[bytes]:
    with file:
        # A mapping lasts without its file and its name, and nothing is open when nobody asks for a record.
        size = os.fstat(file.fileno()).st_size
        content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return _opened(content, sealing, place)


def _opened(content: mmap.mmap | bytes, sealing: Sealing, place: bytes) -> Iterator[bytes]:
    at, number = 0, 0
    while True:
        head = content[at : at + _LENGTH.size]
        count = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        at += _LENGTH.size
        if at + count >= len(content):
            # The last record holds nothing and says how many there were: a file cut between two records lacks it.
            sealing.open(content[at:], _ended(place, number))
            return
        yield sealing.open(content[at : at + count], _numbered(place, number))
        at, number = at + count, number + 1


def _numbered(place: bytes, number: int) -> bytes:
    return place + b"\0" + number.to_bytes(8, "little")


def _ended(place: bytes, count: int) -> bytes:
    return place + b"\0end" + count.to_bytes(8, "little")


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make names that were given or removed in `folder` last. Raises: `StoreError`."""
    with explained(folder):
        _sync(folder)


def _sync(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise `StoreError` about `path` in the place of what the system says of a file or folder."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(
            f"'{path.name}' is not there", expected="material that nobody took yet", came="no such file"
        ) from None
    except OSError as error:
        raise StoreError(
            f"'{path.name}' cannot be written or read",
            expected="room on the disk, and the right to write there",
            came=error.strerror or type(error).__name__,
            fix="make room or name another folder; what was stored before is still good",
        ) from None
