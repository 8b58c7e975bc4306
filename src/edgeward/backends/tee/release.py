"""`SplitRelease`: a deployment as files: the normal world's network, the trusted application, the sealed weights."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.backends.tee.evidence import Measurements, measure
from edgeward.backends.tee.manifest import MAX_MANIFEST_BYTES, SplitManifest, manifest_of
from edgeward.backends.tee.rollback import RollbackCounter
from edgeward.backends.tee.sealing import open_sealed, seal
from edgeward.backends.tee.session import Session
from edgeward.backends.tee.split_executable import Allowance, SessionHalf, SplitExecutable
from edgeward.backends.tee.world import Application, SecureWorld
from edgeward.codegen.emit import Program
from edgeward.core.errors import VerificationFailed
from edgeward.core.randomness import SecretBytes

MANIFEST, NORMAL, SEALED = "manifest.json", "normal-world/model.onnx", "secure-world/weights.sealed"
CARD = "CARD.md"
SECURE = "secure-world"
_SIZES = f"{SECURE}/net.h"
_LARGEST_FILE, _LARGEST_TEXT = 1 << 30, 1 << 24


@final
@dataclass(frozen=True)
class SplitRelease:
    """Everything that ships: the manifest, the files it names (path -> content) and the sealed weights.

    Guarantee: no weight, bias or table is outside `sealed` (by construction). In clear are shapes and the activations'
    scales and zero points, which calibration derived from the secret network: what they give away is not audited.
    """

    manifest: SplitManifest
    files: Mapping[str, bytes]
    sealed: bytes

    @property
    def program(self) -> Program:
        """The secure world's network in C."""
        names = {path.partition("/")[2]: path for path in self.files if path.startswith(f"{SECURE}/")}
        sizes, border = self.manifest.sizes, self.manifest.border
        return Program(
            {name: self.files[path].decode("utf-8", "replace") for name, path in names.items()},
            sizes["arena"],
            sizes["weights"],
            tuple(value.bytes for value in border.taps),
            (4 if border.ends_in_argmax else border.classes,),
        )

    def application(self, counter_floor: int = 0, asked: int = 0) -> Application:
        """Return the trusted application, which accepts weights of at least `counter_floor`; `asked` inferences were
        answered before.
        """
        border = self.manifest.border
        return Application(
            self.program,
            self.manifest.digest(),
            self.manifest.sizes["budget"],
            counter_floor,
            border.policy,
            border.ends_in_argmax,
            asked,
        )

    def write(self, folder: Path) -> None:
        """Write manifest, files and sealed weights below `folder`; the manifest comes last."""
        content = {**self.files, SEALED: self.sealed, MANIFEST: self.manifest.to_bytes()}
        for name, data in content.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            partial.write_bytes(data)
            os.replace(partial, path)

    @classmethod
    def read(cls, folder: Path) -> SplitRelease:
        """Read a release of foreign origin. Raises: `VerificationFailed` naming every file that is not what it should
        be.

        The sealed weights are judged by the secure world alone, when they are loaded. Whose release it is nobody checks
        here: its C text is compiled and run, so that one from a stranger belongs into the tier "wasm" alone.
        """
        manifest = SplitManifest.from_bytes(_content(folder / MANIFEST, MAX_MANIFEST_BYTES))
        lacking = [name for name in (NORMAL, _SIZES) if name not in manifest.files]
        if lacking:
            raise _refused("lacks parts", f"{NORMAL} and {_SIZES}", f"no {', '.join(lacking)}")
        deep = [name for name in manifest.files if name.startswith(f"{SECURE}/") and name.count("/") > 1]
        if deep:
            raise _refused("has C text in folders", f"files of {SECURE}/ itself", ", ".join(deep[:8]))
        files = {
            name: _content(folder / name, _LARGEST_FILE if name == NORMAL else _LARGEST_TEXT) for name in manifest.files
        }
        wrong = [name for name, data in files.items() if hashlib.sha256(data).hexdigest() != manifest.files[name]]
        if wrong:
            named = ", ".join(wrong[:8])
            raise _refused(f"has {len(wrong)} changed files", "the files the manifest was written for", named)
        if not _agree(manifest, files[_SIZES].decode("ascii", "replace")):
            raise _refused("declares other sizes than its C text has", f"the sizes of {_SIZES}", "others")
        return cls(manifest, files, _content(folder / SEALED, _LARGEST_FILE))


def release(
    deployment: SplitDeployment,
    key: SecretBytes,
    counter: int,
    *,
    memory_budget: int | None = None,
    identity: str = "",
    card: str | None = None,
) -> SplitRelease:
    """Return `deployment` as files, its weights and query limit sealed for the device that holds `key`.

    `memory_budget` is what the secure world may take in bytes; None takes exactly what it needs. `identity` is that of
    former releases (see `manifest_of`), `card` the text of `CARD.md`, which the manifest covers. Raises: `ModelError`
    where a half has no form, `SecureMemoryExceeded` over budget.
    """
    from edgeward.backends.cleartext.onnx_lowering import to_onnx_bytes
    from edgeward.backends.tee.world import over_budget
    from edgeward.codegen.arena import plan
    from edgeward.codegen.blob import pack
    from edgeward.codegen.emit import emit

    secure, border = deployment.secure, deployment.border
    program = emit(secure, plan(secure))
    probe = Application(program, bytes(32), 1, 0, border.policy, border.ends_in_argmax)
    budget = probe.needed_bytes if memory_budget is None else memory_budget
    if probe.needed_bytes > budget:
        raise over_budget(Application(program, bytes(32), budget, 0, border.policy, border.ends_in_argmax))
    files = {NORMAL: to_onnx_bytes(deployment.normal)}
    files |= {f"{SECURE}/{name}": text.encode() for name, text in program.files.items()}
    files |= {} if card is None else {CARD: card.encode("utf-8")}
    sizes = {"weights": program.weights_bytes, "arena": program.arena_bytes, "budget": budget}
    manifest = manifest_of(deployment, files, sizes, counter, identity)
    return SplitRelease(manifest, files, seal(pack(secure), key, manifest.digest(), counter, deployment.query_limit))


def resealed(split: SplitRelease, old: SecretBytes, new: SecretBytes, counter: int, card: str | None) -> SplitRelease:
    """Return `split`, sealed with the key `old`, for the device that holds `new`, with another counter and card.

    Raises: `SealedBlobError` where `old` does not open it.
    """
    opened = open_sealed(split.sealed, old, split.manifest.digest(), 0)
    files = {path: data for path, data in split.files.items() if path != CARD}
    files |= {} if card is None else {CARD: card.encode("utf-8")}
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    manifest = replace(split.manifest, files=digests, counter=counter)
    limit = opened.query_limit or None
    return SplitRelease(manifest, files, seal(opened.content, new, manifest.digest(), counter, limit))


@final
class RunningSplit:
    """A release running in two worlds; a context manager that ends the secure session."""

    def __init__(
        self,
        split: SplitRelease,
        world: SecureWorld,
        counter: RollbackCounter | None = None,
        asked: RollbackCounter | None = None,
    ) -> None:
        """Open a session in `world`, load the sealed weights and raise the device's rollback `counter`.

        `asked` is the device's count of inferences, which a query limit goes on from; without it, it begins at 0.
        Raises: `BlobRefused` with the reason, `SecureMemoryExceeded`, `SecureWorldUnavailable`.
        """
        from edgeward.backends.cleartext.onnxruntime import OnnxExecutable

        floor, before = (0 if kept is None else kept.floor() for kept in (counter, asked))
        self.split, self._world = split, world
        self._application = split.application(floor, before)
        self.session: Session = world.open_session(self._application)
        try:
            loaded = self.session.load(split.sealed)
            if counter is not None:
                counter.advance(loaded)
            limit = split.manifest.border.query_limit
            allowance = None if limit is None else Allowance(limit, before, asked)
            half = SessionHalf(self.session, world.tier, world.notice, split.manifest.transfer, allowance)
            self.executable = SplitExecutable(OnnxExecutable(split.files[NORMAL]), split.manifest.border, half)
        except BaseException:
            self.session.close()
            raise

    def measurements(self) -> Measurements:
        """Return what evidence states of this session: its compiled application, sealed weights, manifest and tier."""
        compiled = self._world.build(self._application).read_bytes()
        return measure(compiled, self.split.sealed, self.split.manifest.digest(), self._world.tier)

    def __enter__(self) -> RunningSplit:
        """Return itself."""
        return self

    def __exit__(self, *exception: Any) -> None:
        """End the secure session."""
        self.session.close()


def _agree(manifest: SplitManifest, header: str) -> bool:
    """Return whether the sizes that memory is taken by are those the network's C text uses."""
    border, sizes = manifest.border, manifest.sizes
    inputs = [value.bytes for value in border.taps]
    wanted = {
        "WEIGHTS_BYTES": sizes["weights"],
        "ARENA_BYTES": sizes["arena"],
        "INPUTS": len(inputs),
        "OUTPUTS": 1,
        "OUTPUT_BYTES_0": 4 if border.ends_in_argmax else border.classes,
        **{f"INPUT_BYTES_{i}": size for i, size in enumerate(inputs)},
    }
    lines = header.splitlines()
    return all(
        [line for line in lines if line.startswith(f"#define EDGEWARD_NET_{name} ")]
        == [f"#define EDGEWARD_NET_{name} {size}"]
        for name, size in wanted.items()
    )


def _refused(what: str, expected: str, came: str) -> VerificationFailed:
    fix = "copy the bundle again from where it was written"
    return VerificationFailed(f"the split deployment {what}", expected=expected, came=came, fix=fix)


def _content(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file; a pipe or a device in its place is refused and not waited for."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a plain file")
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(f"larger than {most} bytes")
        return data
    except OSError as error:
        came = error.strerror or str(error)
        raise _refused(f"has no readable '{path.name}'", f"a file of at most {most} bytes", came) from None
