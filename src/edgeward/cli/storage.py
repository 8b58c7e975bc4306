"""What verbs read and write of a device: its (emulated) secure storage, its public key, its evidence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgeward.core.errors import ConfigError

if TYPE_CHECKING:
    from edgeward.backends.tee.device_storage import DeviceStorage


def existing_storage(folder: Path) -> DeviceStorage:
    """Return the storage in `folder`. Raises: `ConfigError` where no device keeps a key there: none is made."""
    from edgeward.backends.tee.device_storage import KEY_FILE, DeviceStorage

    if not (folder / KEY_FILE).is_file():
        raise ConfigError(
            f"no device keeps its key in {folder}",
            expected=f"the folder of a device's secure storage, with '{KEY_FILE}'",
            came="no such file" if folder.is_dir() else "no such folder",
            fix="name the storage that `edgeward mirror` printed: --storage FOLDER",
        )
    return DeviceStorage(folder)


def attester(key: Path | None, bundle: Path, storage: Path | None) -> bytes:
    """Return a device's public key: of the given file, or of the storage that stands for the device.

    Raises: `ConfigError` where there is none.
    """
    from edgeward.backends.tee.device_storage import ATTESTER_FILE

    path = key or (storage or bundle.absolute().parent / "device") / ATTESTER_FILE
    return _read(
        path, "the device's public key", f"name it with --attester; a device's storage holds '{ATTESTER_FILE}'"
    )


def token_of(path: Path) -> bytes:
    """Return the bytes of a token. Raises: `ConfigError` where it cannot be read."""
    from edgeward.backends.tee.evidence import MAX_TOKEN_BYTES

    return _read(path, "the evidence", "write it with `edgeward run --evidence FILE`")[: MAX_TOKEN_BYTES + 1]


def written(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: `ConfigError`."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        came = f"{path}: {error.strerror}"
        raise ConfigError("this cannot be written", came=came, fix="name a file in a folder that exists") from None


def _read(path: Path, what: str, fix: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read", came=f"{path}: {error.strerror}", fix=fix) from None
