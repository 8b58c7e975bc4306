"""`edgeward run`: let a split bundle answer through its two worlds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.storage import existing_storage, written
from edgeward.core.errors import ConfigError, unknown_name

TIERS = ("wasm", "process", "optee", "none")
EMULATED = ("wasm", "process")
ALONE = "the normal world alone; no secure part took part in this answer"


def run(
    bundle: Annotated[
        Path,
        typer.Argument(help="The bundle of a split that `edgeward mirror` or `protect` wrote.", show_default=False),
    ],
    records: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--input", help="Records as .npy, one or a batch.", show_default=False),
    ] = None,
    tier: Annotated[
        str,
        typer.Option(help="The secure world: wasm | process | optee (your own kit) | none (the normal world alone)."),
    ] = "wasm",
    storage: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The device's secure storage; default: `device` beside the bundle.", show_default=False),
    ] = None,
    evidence: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a signed token over this session here, for `edgeward verify`.", show_default=False),
    ] = None,
    nonce: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What the verifier drew for this token: 16 to 128 hexadecimal digits.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Answer for each record, and say which tier of isolation gave the answer; or issue evidence of what runs."""
    from edgeward.backends.cleartext.onnxruntime import OnnxExecutable
    from edgeward.backends.tee.release import NORMAL, RunningSplit
    from edgeward.backends.tee.tiers import secure_world
    from edgeward.deploy.split import read_split
    from edgeward.deploy.split_evidence import attest, read_nonce

    _check(records, tier, evidence, nonce)
    question = read_nonce(nonce) if evidence else b""
    split = read_split(bundle)
    normal = OnnxExecutable(split.files[NORMAL])
    x = None if records is None else _records(records, normal.input_shape)
    if tier == "none" and x is not None:
        return _answer(_alone(normal, x, len(split.manifest.border.taps)), "none", ALONE)
    if tier == "optee":
        _on_a_device(split)
    device = existing_storage(storage or bundle.absolute().parent / "device")
    name = split.manifest.identity
    with RunningSplit(split, secure_world(tier, device.key()), device.counter(name), device.asked(name)) as running:
        token = attest(running, device, question) if evidence else b""
        found = () if x is None else running.executable.labels(x)
        notice = running.executable.notice
    if evidence:
        written(evidence, token)
    return _answer(found, f"emulated: {tier}", notice, evidence)


def _check(records: Path | None, tier: str, evidence: Path | None, nonce: str | None) -> None:
    """Refuse what belongs to nothing before anything is opened."""
    if tier not in TIERS:
        raise unknown_name("tier", tier[:40], TIERS)
    if evidence and tier not in EMULATED:
        raise ConfigError(
            f"the tier '{tier}' issues no evidence here",
            expected="a session on this machine: wasm or process",
            came=f"--tier {tier} with --evidence",
            fix="leave --evidence out; a device issues its own evidence",
        )
    if records is None and evidence is None:
        raise ConfigError("there is nothing to do", expected="--input, --evidence or both", came="neither")
    if nonce is not None and evidence is None:
        raise ConfigError("a nonce is for evidence", expected="--nonce with --evidence FILE", came="--nonce alone")


def _on_a_device(split: Any) -> None:
    """Build the application for the user's kit; it runs on its device, so that this always raises."""
    from edgeward.backends.tee.optee import OpteeWorld, uuid_of

    OpteeWorld(uuid_of(split.manifest.identity)).open_session(split.application())


def _alone(normal: Any, x: np.ndarray, taps: int) -> np.ndarray:
    outputs = normal.run_all(x)
    if len(outputs) == taps:
        raise ConfigError(
            "the normal world of this bundle has no answer of its own",
            expected="a secure tier",
            came="tier none",
            fix="run with --tier wasm or --tier process",
        )
    return np.asarray(outputs[-1].argmax(1))


def _answer(labels: Iterable[Any], tier: str, notice: str, evidence: Path | None = None) -> Reply:
    found = [int(label) for label in labels]
    said = notice if notice.startswith(tier) else f"{tier} ({notice})"
    blocks: list[Any] = [*map(str, found), f"tier: {said}"]
    blocks += [] if evidence is None else [f"evidence: {evidence}"]
    document = {"labels": found, "tier": tier, "notice": notice}
    return Reply(document if evidence is None else {**document, "evidence": str(evidence)}, blocks)


def _records(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        x = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"'{path.name}' cannot be read",
            expected="a .npy file of numbers",
            came=str(error)[:200],
            fix="write it with numpy.save",
        ) from None
    x = x[None] if x.shape == shape else x
    if x.dtype.kind not in "fiu" or x.ndim != len(shape) + 1 or x.shape[1:] != shape or not len(x):
        raise ConfigError(
            "these records do not fit the bundle",
            expected=f"numbers of shape {list(shape)} per record",
            came=f"{x.dtype} {list(x.shape)}",
            fix="scale and arrange the records as in training",
        )
    x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        raise ConfigError(
            "these records are not finite numbers in float32",
            expected="finite numbers, scaled as in training",
            came=f"{int((~np.isfinite(x)).sum())} values that are not",
            fix="leave the damaged records out",
        )
    return x
