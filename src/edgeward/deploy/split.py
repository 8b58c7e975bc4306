"""`verify_split`: a split bundle is what its manifest says, and its sealed weights belong to that manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from edgeward.backends.cleartext.container import Malformed, read_json
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.manifest import MAX_MANIFEST_BYTES, SCHEMA, SplitManifest
from edgeward.backends.tee.release import MANIFEST, NORMAL, SEALED, SplitRelease
from edgeward.backends.tee.sealing import SealedBlobError, open_sealed, read_header
from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.deploy.folder import failed, listing, read_file

JUDGED_LATER = "bound to this manifest by its header; its content is judged by the secure world that loads it"
OPENED = "opened with the key of the given storage: whole, for this manifest, not older than the device allows"


@final
@dataclass(frozen=True)
class SplitVerifyReport:
    """What a successful verification saw; `uncovered` lists files that lie beside what the manifest names.

    `sealed_opened` is whether the sealed weights were opened, with the key of a device's storage; without one only
    their header is compared, and `sealed` says so.
    """

    manifest_digest: str
    pinned: bool
    files: int
    bytes: int
    counter: int
    identity: str
    query_limit: int | None
    sealed: str
    sealed_opened: bool
    uncovered: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {**asdict(self), "uncovered": list(self.uncovered)}


def is_split(root: Path) -> bool:
    """Return whether the folder holds a split bundle, whole or damaged, and not one of `protect`."""
    if (root / SEALED).exists():
        return True
    try:
        plain = read_json(read_file(root, MANIFEST, MAX_MANIFEST_BYTES))
    except (Malformed, VerificationFailed):
        return False
    return isinstance(plain, dict) and str(plain.get("schema", "")).startswith(SCHEMA.partition("/")[0])


def read_split(root: Path) -> SplitRelease:
    """Read a split bundle of foreign origin, every named byte compared with the manifest.

    Errors: `ConfigError` where there is no split bundle at all, `VerificationFailed` naming every file that differs.
    """
    if not root.is_dir() or not is_split(root):
        raise ConfigError(
            f"there is no split bundle at {root}",
            expected="a split that `edgeward mirror` or `edgeward protect` wrote",
            came="another kind of folder" if root.is_dir() else "no such folder",
            fix="correct the path, or run one of them first",
        )
    listing(root)
    try:
        SplitManifest.from_bytes(read_file(root, MANIFEST, MAX_MANIFEST_BYTES))
    except VerificationFailed as error:
        raise failed(f"{MANIFEST}: {error.what}", expected=error.expected, came=error.came) from None
    split = SplitRelease.read(root)
    if NORMAL not in split.files:
        raise failed(f"{MANIFEST} names no network of the normal world", expected=NORMAL, came="other files")
    return split


def verify_split(root: Path, expect: str | None = None, storage: DeviceStorage | None = None) -> SplitVerifyReport:
    """Check every byte that the manifest of the split bundle at `root` names, and that the sealed weights are its own.

    `expect` is the SHA-256 of `manifest.json`, learnt another way. `storage` holds the device's key: with it the sealed
    weights are opened and checked too, and not kept.
    Guarantee: as `verify`: without `expect` against accidents and unsigned tampering only; the sealed content is
    authentic only where it was opened (AES-256-GCM, assumed secure). Errors: `VerificationFailed` naming the files.
    """
    split = read_split(root)
    digest = split.manifest.digest()
    if expect is not None and expect.strip().lower().removeprefix("sha256:") != digest.hex():
        raise failed(f"{MANIFEST} is not the expected one", expected=f"SHA-256 {expect}", came=digest.hex())
    _check_sealed(split, storage)
    named = {MANIFEST, SEALED, *split.files}
    return SplitVerifyReport(
        manifest_digest=digest.hex(),
        pinned=expect is not None,
        files=len(split.files),
        bytes=sum(map(len, split.files.values())),
        counter=split.manifest.counter,
        identity=split.manifest.identity,
        query_limit=split.manifest.border.query_limit,
        sealed=JUDGED_LATER if storage is None else OPENED,
        sealed_opened=storage is not None,
        uncovered=tuple(sorted(set(listing(root)) - named)),
    )


def write_split(split: SplitRelease, target: Path) -> None:
    """Write a split bundle to `target`: whole, or `target` holds what it held before.

    Errors: `ConfigError` for a folder that holds anything but a split bundle.
    """
    _refuse_foreign(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as workplace:
            made, old = Path(workplace) / "new", Path(workplace) / "old"
            split.write(made)
            if target.is_dir():
                os.rename(target, old)
            os.rename(made, target)
    except OSError as error:
        came = f"{target}: {error.strerror}"
        raise ConfigError("the bundle cannot be written", came=came, fix="choose a folder you can write to") from error


def remove_split(target: Path) -> None:
    """Remove the split bundle at `target`, if there is one; whatever else is there stays.

    Errors: `ConfigError` for a split bundle with files added to it.
    """
    if target.is_dir() and not target.is_symlink() and is_split(target):
        _refuse_foreign(target)
        shutil.rmtree(target, ignore_errors=True)


def _refuse_foreign(target: Path) -> None:
    """Allow a missing or empty folder, or a split bundle with nothing added; refuse the rest."""
    if not os.path.lexists(target):
        return
    reason = "it is a file or a link" if target.is_symlink() or not target.is_dir() else ""
    if not reason and any(target.iterdir()):
        try:
            listed = SplitManifest.from_bytes(read_file(target, MANIFEST, MAX_MANIFEST_BYTES)).files
            added = sorted(set(listing(target)) - {MANIFEST, SEALED, *listed})
            reason = f"it holds files of somebody else: {', '.join(added[:5])}" if added else ""
        except VerificationFailed:
            reason = "it holds files and is not a split bundle"
    if reason:
        expected = "a new folder, or a split bundle"
        raise ConfigError(f"{target.name} is not overwritten", expected=expected, came=reason, fix="choose another")


def _check_sealed(split: SplitRelease, storage: DeviceStorage | None) -> None:
    digest, counter = split.manifest.digest(), split.manifest.counter
    try:
        header = read_header(split.sealed)
        if header.manifest_digest != digest:
            came = f"sealed for manifest {header.manifest_digest.hex()[:16]}..."
            raise failed(
                f"{SEALED} and {MANIFEST} do not belong together", expected=digest.hex()[:16] + "...", came=came
            )
        if header.counter != counter:
            raise failed(
                f"{SEALED} has another counter than {MANIFEST}", expected=str(counter), came=str(header.counter)
            )
        if storage is None:
            return
        floor = storage.counter(split.manifest.identity).floor()
        opened = open_sealed(split.sealed, storage.key(), digest, floor)
    except SealedBlobError as error:
        raise failed(f"{SEALED}: {error.what}", expected=error.expected, came=error.came) from None
    declared = split.manifest.sizes["weights"], split.manifest.border.query_limit or 0
    found = len(opened.content), opened.query_limit
    if found != declared:
        expected, came = (f"{size} bytes, query limit {limit or 'none'}" for size, limit in (declared, found))
        raise failed(f"{SEALED} holds other weights than {MANIFEST} declares", expected=expected, came=came)
