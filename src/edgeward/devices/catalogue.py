"""The shipped device profiles, and a user's own from a file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from edgeward.core.errors import ConfigError, unknown_name
from edgeward.devices.profile import DeviceProfile
from edgeward.devices.reading import parse_profile

_LARGEST_FILE = 1 << 20


def devices() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted.

    >>> "cortex-m4" in devices()
    True
    """
    folder = files("edgeward.devices") / "profiles"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_profile(name: str | Path) -> DeviceProfile:
    """Return a shipped profile by name, or read a user's own from a path that ends in `.toml`.

    Raises `ConfigError`: unknown name (with the nearest one), unreadable file, or everything wrong in the file.
    """
    if str(name).endswith(".toml"):
        return _read(Path(name))
    if str(name) not in devices():
        raise unknown_name("device", str(name), devices())
    return parse_profile(_shipped(str(name)) or "", f"'{name}'", _shipped)


def _shipped(name: str) -> str | None:
    if name not in devices():
        return None
    return (files("edgeward.devices") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")


def _read(path: Path) -> DeviceProfile:
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("larger than 1 MiB")
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the device profile '{path}' cannot be read",
            expected="a readable UTF-8 TOML file of at most 1 MiB, or a name of " + ", ".join(devices()),
            came=getattr(error, "strerror", None) or str(error),
            fix="check the path, or choose a shipped profile (`edgeward devices list`)",
        ) from None
    return parse_profile(text, f"'{path}'", _shipped)
