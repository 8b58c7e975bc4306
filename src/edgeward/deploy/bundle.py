"""`Bundle`: the folder that ships, written whole or not at all, and loaded only after verification."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from edgeward.backends.backend import BACKENDS
from edgeward.backends.cleartext.container import Malformed, canonical_json
from edgeward.backends.executable import Executable
from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.deploy.digest import network_digest
from edgeward.deploy.folder import listing, read_file, seal_line, sha256
from edgeward.deploy.manifest import MANIFEST, MAX_MANIFEST_BYTES, SEAL, FileEntry, Manifest, Role, valid_path
from edgeward.deploy.vectors import Vectors
from edgeward.deploy.verify import Verified, VerifyReport, open_verified
from edgeward.graph.network import Network


def write_bundle(
    directory: str | os.PathLike[str],
    *,
    artefact: bytes,
    backend: str,
    card: str,
    vectors: Vectors | tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, "n classes"]],
    report: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    network: Network | None = None,
    classes: int | None = None,
    license: str = "",
    created: str = "",
    extras: Mapping[str, bytes] | None = None,
) -> VerifyReport:
    """Write a bundle, verify it, and only then move it to `directory`.

    `artefact` is the file of `backend` (a name of `BACKENDS`) that was measured; it goes to `device/`, and so do the
    files that a device needs beside it (the emitted C of "c"). `vectors` are
    inputs that are no records of any split, with the artefact's answers (`Vectors.answered_by`). `report` becomes
    report.json, `card` CARD.md, `extras` further files by path. Of `network` only the digest is written; `classes`,
    where given, must be the width of the logits. The same arguments give the same bytes.

    Guarantee: `directory` holds a complete, verified bundle or what it held before. A folder that is not a bundle, or
    a bundle with files added to it, is never overwritten. Raises: `ConfigError`; `VerificationFailed` when the
    artefact does not repeat the vectors.
    """
    target, lowering = Path(directory), BACKENDS[backend]
    _refuse_foreign(target)
    kept = vectors if isinstance(vectors, Vectors) else Vectors(*(np.asarray(part, np.float32) for part in vectors))
    if classes is not None and classes != kept.logits.shape[1]:
        raise ConfigError("the vectors do not fit", expected=f"{classes} logits", came=f"{kept.logits.shape[1]} logits")
    files: dict[str, tuple[Role, bytes]] = {
        f"device/{lowering.file_name}": ("model", artefact),
        "vectors.safetensors": ("vectors", kept.to_bytes()),
        "CARD.md": ("card", card.encode("utf-8")),
        **{f"device/{path}": ("other", data) for path, data in lowering.companions(artefact).items()},
    }
    if report is not None:
        files["report.json"] = ("report", _plain_json("report", report).encode())
    for path, data in (extras or {}).items():
        if not valid_path(path) or path.casefold() in {known.casefold() for known in files}:
            raise ConfigError(f"{path!r} cannot be a file of the bundle", expected="a new relative path of plain names")
        files[path] = ("license" if path.startswith("LICENSE") else "other", data)
    _plain_json("recipe", recipe or {})
    manifest = Manifest(
        files=tuple(FileEntry(path, role, len(data), sha256(data)) for path, (role, data) in files.items()),
        backend=backend,
        runtime=lowering.load(artefact).runtime,
        input_shape=tuple(kept.x.shape[1:]),
        classes=int(kept.logits.shape[1]),
        tolerance=lowering.replay_tolerance(artefact),
        network_digest=network_digest(network) if network is not None else "",
        recipe=dict(recipe or {}),
        license=license,
        created=created,
    )
    return _placed(target, manifest, {path: data for path, (_, data) in files.items()})


def copy_bundle(source: str | os.PathLike[str], directory: str | os.PathLike[str], expect: str | None = None) -> Path:
    """Verify the bundle at `source`, write what was verified to `directory`, and return that.

    Guarantee and errors: as of `verify` and `write_bundle`.
    """
    target, verified = Path(directory), open_verified(Path(source), expect)
    _refuse_foreign(target)
    _placed(target, verified.manifest, verified.contents)
    return target


def remove_bundle(directory: str | os.PathLike[str]) -> None:
    """Remove the bundle at `directory`, if there is one.

    Errors: `ConfigError` for a folder that is not a bundle, or a bundle with files added to it; nothing is removed.
    """
    target = Path(directory)
    _refuse_foreign(target)
    shutil.rmtree(target, ignore_errors=True)


@final
@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory."""

    path: Path
    _verified: Verified

    @classmethod
    def load(cls, path: str | os.PathLike[str], expect: str | None = None) -> Bundle:
        """Verify the bundle at `path` (see `verify`) and return it; later changes on the disk do not reach it."""
        return cls(Path(path), open_verified(Path(path), expect))

    @property
    def manifest(self) -> Manifest:
        """What the bundle holds."""
        return self._verified.manifest

    @property
    def verified(self) -> VerifyReport:
        """What the verification saw."""
        return self._verified.report

    def read(self, path: str) -> bytes:
        """Return a listed file as it was verified."""
        if path not in self._verified.contents:
            raise ConfigError(f"the bundle has no file {path!r}", expected=", ".join(sorted(self._verified.contents)))
        return self._verified.contents[path]

    def executable(self) -> Executable:
        """Return the model, ready to run."""
        return self._verified.executable

    def run(self, x: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Return the logits of `x` [n, ...input shape]."""
        return self._verified.executable.run(x)


def _plain_json(name: str, plain: Mapping[str, Any]) -> str:
    try:
        return canonical_json(dict(plain))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the {name} is not plain JSON", expected="finite numbers, texts, lists, tables", came=str(error)
        ) from error


def _refuse_foreign(target: Path) -> None:
    """Allow a missing or empty folder, or a bundle with nothing added; refuse the rest."""
    if not os.path.lexists(target):
        return
    reason = ""
    if target.is_symlink() or not target.is_dir():
        reason = "it is a file or a link"
    elif any(target.iterdir()):
        try:
            manifest = Manifest.from_bytes(read_file(target, MANIFEST, MAX_MANIFEST_BYTES))
            added = set(listing(target)) - {entry.path for entry in manifest.files} - {MANIFEST, SEAL}
            reason = f"it holds files of somebody else: {', '.join(sorted(added)[:5])}" if added else ""
        except (Malformed, VerificationFailed, OSError):
            reason = "it holds files and is not a bundle"
    if reason:
        raise ConfigError(
            f"{target.name} is not overwritten", expected="a new folder, or a bundle", came=reason, fix="choose another"
        )


def _placed(target: Path, manifest: Manifest, files: Mapping[str, bytes]) -> VerifyReport:
    try:
        return _place(target, manifest, files)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written", came=str(error.strerror), fix="choose a folder you can write to"
        ) from error


def _place(target: Path, manifest: Manifest, files: Mapping[str, bytes]) -> VerifyReport:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as workplace:
        made, old = Path(workplace) / "new", Path(workplace) / "old"
        raw = manifest.to_bytes()
        for path, data in {**files, MANIFEST: raw, SEAL: seal_line(raw)}.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(data)
        report = open_verified(made, sha256(raw)).report
        replaced = target.is_dir()
        if replaced:
            os.rename(target, old)
        try:
            os.rename(made, target)
        except BaseException:
            if replaced:
                os.rename(old, target)
            raise
    return report
