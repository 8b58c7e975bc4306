"""`Manifest`: what a bundle holds, file by file, and what its model takes and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Literal, final, get_args

from edgeward.backends.cleartext.container import Malformed, canonical_json, read_json

SCHEMA = "edgeward.bundle/1"
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
MAX_MANIFEST_BYTES, MAX_FILE_BYTES, MAX_FILES = 1 << 20, 1 << 32, 256
Role = Literal["model", "vectors", "card", "report", "license", "other"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PATH = re.compile(rf"{_NAME}(/{_NAME}){{0,3}}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@final
@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: its path below the bundle's folder, its role, its size and its SHA-256."""

    path: str
    role: Role
    bytes: int
    sha256: str


@final
@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`; canonical, so that equal manifests are equal bytes.

    `backend` names how `model` is run, `tolerance` within which error it repeats the logits of its vectors (0: bit for
    bit). `network_digest` is the SHA-256 of the network it was lowered from, or empty. `created` is a time stamp only
    where the writer gave one. `recipe` is plain data for people, never interpreted.
    """

    files: tuple[FileEntry, ...]
    backend: str
    runtime: str
    input_shape: tuple[int, ...]
    classes: int
    tolerance: float
    network_digest: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    license: str = ""
    created: str = ""
    created_by: str = field(default_factory=lambda: f"edgeward {_version()}")
    schema: str = SCHEMA

    def to_bytes(self) -> bytes:
        """Return the one canonical form: sorted keys, files sorted by path."""
        plain = asdict(self)
        plain["files"] = sorted(plain["files"], key=lambda entry: str(entry["path"]))
        return (canonical_json(plain) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest of foreign origin; anything but the canonical form of a valid one raises `Malformed`."""
        plain = read_json(data)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise Malformed(f"it does not say schema {SCHEMA}")
        wrong = [name for name, valid in _VALID.items() if name not in plain or not valid(plain[name])]
        foreign = sorted(set(plain) - set(_VALID))
        if wrong or foreign:
            raise Malformed(f"missing or malformed: {wrong}, foreign: {foreign[:5]}")
        entries = tuple(_entry(entry) for entry in plain.pop("files"))
        manifest = cls(**{**plain, "files": entries, "input_shape": tuple(plain["input_shape"])})
        if len({entry.path.casefold() for entry in entries}) != len(entries):
            raise Malformed("two files have the same path")
        for role in ("model", "vectors"):
            if sum(entry.role == role for entry in entries) != 1:
                raise Malformed(f"there is not exactly one file with the role {role}")
        if manifest.to_bytes() != data:
            raise Malformed("it is not in canonical form")
        return manifest

    def entry(self, role: Role) -> FileEntry | None:
        """Return the first file with a role."""
        return next((entry for entry in self.files if entry.role == role), None)


def valid_path(path: str) -> bool:
    """Return whether a path may stand in a manifest: relative, plain names, no way out of the folder.

    >>> valid_path("device/model.onnx"), valid_path("../x"), valid_path("/etc/passwd"), valid_path("manifest.json")
    (True, False, False, False)
    """
    return _PATH.fullmatch(path) is not None and path.casefold() not in (MANIFEST, SEAL)


def _entry(plain: Any) -> FileEntry:
    if not isinstance(plain, dict) or set(plain) != {"path", "role", "bytes", "sha256"}:
        raise Malformed("a file has no path, role, bytes and sha256")
    if not isinstance(plain["path"], str) or not valid_path(plain["path"]):
        raise Malformed(f"the path {str(plain['path'])[:80]!r} is not allowed")
    if plain["role"] not in get_args(Role) or not _count(plain["bytes"], MAX_FILE_BYTES):
        raise Malformed(f"{plain['path']} has an unknown role or a size that is not allowed")
    if not isinstance(plain["sha256"], str) or not _DIGEST.fullmatch(plain["sha256"]):
        raise Malformed(f"{plain['path']} has no SHA-256")
    return FileEntry(**plain)


def _count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4096


_VALID: Mapping[str, Any] = {
    "schema": _text,
    "files": lambda value: isinstance(value, list) and len(value) <= MAX_FILES,
    "backend": _text,
    "runtime": _text,
    "input_shape": lambda v: isinstance(v, list) and len(v) <= 6 and all(_count(n, 1 << 24) and n for n in v),
    "classes": lambda value: _count(value, 1 << 24),
    "tolerance": lambda value: type(value) in (int, float) and 0 <= value <= 1e-2,
    "network_digest": lambda value: value == "" or (isinstance(value, str) and bool(_DIGEST.fullmatch(value))),
    "recipe": lambda value: isinstance(value, dict),
    "license": _text,
    "created": _text,
    "created_by": _text,
}


def _version() -> str:
    try:
        return metadata.version("edgeward")
    except metadata.PackageNotFoundError:
        return "(not installed)"
