"""`edgeward run`: let a split bundle answer through its two worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.storage import existing_storage
from edgeward.core.errors import ConfigError, unknown_name

TIERS = ("wasm", "process", "none")
ALONE = "the normal world alone; no secure part took part in this answer"


def run(
    bundle: Annotated[Path, typer.Argument(help="The folder that `edgeward mirror` wrote.", show_default=False)],
    records: Annotated[Path, typer.Option("--input", help="Records as .npy, one or a batch.", show_default=False)],
    tier: Annotated[
        str, typer.Option(help="The secure world: wasm | process | none (the normal world alone).")
    ] = "wasm",
    storage: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The device's secure storage; default: `device` beside the bundle.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Answer for each record, and say which tier of isolation gave the answer."""
    from edgeward.backends.cleartext.onnxruntime import OnnxExecutable
    from edgeward.backends.tee.release import NORMAL, RunningSplit
    from edgeward.deploy.split import application_name, read_split

    if tier not in TIERS:
        raise unknown_name("tier", tier[:40], TIERS)
    split = read_split(bundle)
    normal = OnnxExecutable(split.files[NORMAL])
    x = _records(records, normal.input_shape)
    if tier == "none":
        return _answer(_alone(normal, x, len(split.manifest.border.taps)), "none", ALONE)
    device = existing_storage(storage or bundle.absolute().parent / "device")
    counter = device.counter(application_name(split.manifest.name))
    with RunningSplit(split, _world(tier, device), counter) as running:
        return _answer(running.executable.labels(x), f"emulated: {tier}", running.executable.notice)


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


def _answer(labels: np.ndarray, tier: str, notice: str) -> Reply:
    found = [int(label) for label in labels]
    said = notice if notice.startswith(tier) else f"{tier} ({notice})"
    blocks: list[Any] = [*map(str, found), f"tier: {said}"]
    return Reply({"labels": found, "tier": tier, "notice": notice}, blocks)


def _world(tier: str, device: Any) -> Any:
    from edgeward.backends.tee.process_world import ProcessWorld
    from edgeward.backends.tee.wasm_world import WasmWorld

    worlds: dict[str, Any] = {"wasm": WasmWorld, "process": ProcessWorld}
    return worlds[tier](device.key())


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
