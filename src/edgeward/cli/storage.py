"""The secure storage of an (emulated) device, as a verb opens it: it must exist already."""

from __future__ import annotations

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
