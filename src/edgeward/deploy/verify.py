"""`verify`: a bundle is exactly what its manifest says, and its model still answers as it did."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from edgeward.backends.backend import BACKENDS
from edgeward.backends.cleartext.container import Malformed
from edgeward.backends.executable import Executable
from edgeward.backends.tee.release import SEALED
from edgeward.core.errors import ConfigError, EdgewardError, VerificationFailed
from edgeward.deploy.folder import failed, read_file, read_listed, seal_line, sha256
from edgeward.deploy.manifest import MANIFEST, MAX_MANIFEST_BYTES, SEAL, Manifest
from edgeward.deploy.vectors import Vectors


@final
@dataclass(frozen=True)
class VerifyReport:
    """What a successful verification saw; `manifest_digest` is what `expect` pins."""

    manifest_digest: str
    pinned: bool
    files: int
    bytes: int
    backend: str
    runtime: str
    vectors: int
    tolerance: float
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


@final
@dataclass(frozen=True)
class Verified:
    """A bundle in memory, as it was when its hashes were compared: later changes on the disk do not reach it."""

    manifest: Manifest
    contents: dict[str, bytes]
    executable: Executable
    report: VerifyReport


def verify(path: str | os.PathLike[str], expect: str | None = None) -> VerifyReport:
    """Check every byte of the bundle at `path`, then replay its test vectors.

    `expect` is the SHA-256 of `manifest.json` in hexadecimal, obtained on a way the adversary does not control.

    Guarantee: any changed, missing, extra or truncated file, the manifest and its seal included, raises
    `VerificationFailed` naming it. Without `expect` this is against accidents and unsigned tampering only: whoever
    rewrites all hashes passes. With `expect` it is against anybody who cannot find a second preimage of SHA-256
    (assumed). Bundles are not signed. Unaudited.
    Cost: one pass over the files (all held in memory) and one run of the vectors.
    Errors: `ConfigError` where there is nothing that could be a bundle (`need_bundle`).
    """
    need_bundle(Path(path))
    return open_verified(Path(path), expect).report


def need_bundle(root: Path) -> None:
    """Raise `ConfigError` where no bundle lies: no such folder, a file, or a folder without any part of a seal.

    A folder with a manifest, its digest or sealed weights is a bundle, whole or damaged, which verification judges.
    """
    if root.is_dir() and any(os.path.lexists(root / name) for name in (MANIFEST, SEAL, SEALED)):
        return
    came = "no such folder" if not root.exists() else "another kind of folder" if root.is_dir() else "a file"
    raise ConfigError(
        f"there is no bundle at {root}",
        expected=f"a folder with {MANIFEST}, as `edgeward protect` or `edgeward mirror` writes it",
        came=came,
        fix="correct the path; a bundle lies in the folder `bundle` of a run",
    )


def open_verified(root: Path, expect: str | None = None) -> Verified:
    """Verify and return what was verified, so that nothing is read a second time."""
    raw = _sealed_manifest(root)
    digest = sha256(raw)
    if expect is not None and _pin(expect) != digest:
        raise failed(f"{MANIFEST} is not the expected one", expected=f"SHA-256 {expect}", came=digest)
    try:
        manifest = Manifest.from_bytes(raw)
    except Malformed as error:
        raise failed(f"{MANIFEST} is malformed", expected="a manifest this version writes", came=str(error)) from error
    try:
        contents = read_listed(root, manifest)
    except OSError as error:
        raise failed(f"{root.name} changed while it was read", came=str(error.strerror)) from error
    executable, vectors, difference = _replay(manifest, contents)
    size = sum(entry.bytes for entry in manifest.files)
    report = VerifyReport(
        manifest_digest=digest,
        pinned=expect is not None,
        files=len(manifest.files),
        bytes=size,
        backend=manifest.backend,
        runtime=manifest.runtime,
        vectors=len(vectors.x),
        tolerance=manifest.tolerance,
        largest_difference=difference,
    )
    return Verified(manifest, contents, executable, report)


def _pin(expect: str) -> str:
    text = expect.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(
            "the expected digest is not a SHA-256", expected="64 hexadecimal digits", came=repr(expect[:80])
        )
    return text


def _sealed_manifest(root: Path) -> bytes:
    if root.is_symlink() or not root.is_dir():
        raise failed(f"{root} is not a bundle", expected="a folder that is not a link")
    raw = read_file(root, MANIFEST, MAX_MANIFEST_BYTES)
    seal = read_file(root, SEAL, len(seal_line(raw)) + 4096)
    if seal != seal_line(raw):
        raise failed(
            f"{MANIFEST} and {SEAL} do not belong together",
            expected=seal_line(raw).decode().strip(),
            came=seal[:100].decode("ascii", "replace").strip(),
        )
    return raw


def _replay(manifest: Manifest, contents: dict[str, bytes]) -> tuple[Executable, Vectors, float]:
    model, stored = manifest.entry("model"), manifest.entry("vectors")
    if model is None or stored is None or manifest.backend not in BACKENDS:
        raise failed(f"{MANIFEST} names an unknown backend", expected=", ".join(BACKENDS), came=manifest.backend[:80])
    backend = BACKENDS[manifest.backend]
    try:
        vectors = Vectors.from_bytes(contents[stored.path], manifest.input_shape, manifest.classes)
    except Malformed as error:
        raise failed(f"{stored.path} holds no test vectors", came=str(error)) from error
    try:
        executable = backend.load(contents[model.path])
        allowed = backend.replay_tolerance(contents[model.path])
        difference = vectors.largest_difference(executable)
    except VerificationFailed:
        raise
    except EdgewardError as error:
        raise failed(f"{model.path} does not run", came=str(error)) from error
    if executable.runtime != manifest.runtime or manifest.tolerance > allowed:
        raise failed(
            f"{MANIFEST} describes another runtime",
            expected=f"{executable.runtime}, tolerance at most {allowed:g}",
            came=f"{manifest.runtime[:80]}, tolerance {manifest.tolerance:g}",
        )
    if not difference <= manifest.tolerance:
        raise failed(
            f"{model.path} does not repeat the answers in {stored.path}",
            expected=f"a difference of at most {manifest.tolerance:g}",
            came=f"{difference:g}",
        )
    return executable, vectors, difference
