"""`report.json`: one run as plain JSON, and the three files written from it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeward.core.budget import Limit
from edgeward.core.errors import ConfigError, NoFeasibleCandidate
from edgeward.core.frontier import Frontier, Measured
from edgeward.report.card import render_card
from edgeward.report.curves import with_kept_curves
from edgeward.report.html import render_html
from edgeward.report.plain import plain
from edgeward.report.schema import SCHEMA_NAME, validate_report
from edgeward.report.verdict import TITLES, bound
from edgeward.report.wording import NOT_MEASURED, amount, finite


def build_report(
    *,
    frontier: Frontier,
    job: Mapping[str, Any],
    environment: Mapping[str, Any],
    data: Mapping[str, Any],
    device: Mapping[str, Any],
    threats: Sequence[Any],
    failed: Sequence[Mapping[str, Any]],
    command: str,
    finished: bool,
) -> dict[str, Any]:
    """Return one run in the plain form of schema `edgeward.report/2` (docs/report-schema.md).

    Arguments: `frontier` holds every measured candidate and the budget; `job`, `environment`, `data`, `device` and
    `threats` are plain descriptions; `failed` lists `{"recipe", "reason"}`; `command` reproduces the run.
    Guarantee: see `plain`: no tensors, arrays or long lists get in, so records can not by accident.
    Errors: `DataError` listing every value that is not plain, or every field that departs from the schema.
    """
    chosen = _chosen(frontier)
    candidates = [_entry(measured, frontier, chosen) for measured in frontier.measured]
    report = plain(
        {
            "schema": SCHEMA_NAME,
            "edgeward": _version(),
            "command": command,
            "mode": _mode(candidates),
            "finished": finished,
            "job": job,
            "environment": environment,
            "data": data,
            "device": device,
            "budget": frontier.budget.to_json(),
            "threats": threats,
            "candidates": candidates,
            "failed": failed,
            "hypervolume": frontier.hypervolume(),
            "chosen": chosen,
        }
    )
    validate_report(report)
    return dict(report)


def report_json(report: Mapping[str, Any]) -> str:
    """Return the text of `report.json`: sorted keys, ASCII, null for numbers that are not finite, pairs on one line."""
    text = json.dumps(plain(report), sort_keys=True, indent=1, allow_nan=False) + "\n"
    # A line break never stands inside a JSON string, so only lists of two numbers can match.
    return re.sub(r"\[\n\s*([-+.\deE]+|null),\n\s*([-+.\deE]+|null)\n\s*\]", r"[\1, \2]", text)


def write_report(directory: str | os.PathLike[str], report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.json`, `report.html` and `CARD.md` of the chosen candidate; return their paths.

    Everything is rendered before the first file is touched, and each file is replaced in one step, so an interrupted
    call leaves no half-written file. Errors: `DataError` for an invalid report, `ConfigError` for an unusable folder.
    """
    whole = plain(report)
    validate_report(whole)
    texts = {"report.json": report_json(whole), "report.html": render_html(whole), "CARD.md": render_card(whole)}
    return write_texts(Path(directory), texts)


def write_texts(folder: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Write each text under its name in `folder`, each file replaced in one step. Errors: `ConfigError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tuple(_replace(folder / name, text) for name, text in texts.items())
    except OSError as error:
        raise ConfigError(
            "the report cannot be written",
            expected="a folder that can be created and written to",
            came=f"{folder}: {error.strerror}",
            fix="choose another folder",
        ) from error


def _replace(path: Path, text: str) -> Path:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _version() -> str:
    try:
        return metadata.version("edgeward")
    except metadata.PackageNotFoundError:
        return "unknown"


def _chosen(frontier: Frontier) -> str | None:
    try:
        return frontier.choose().candidate.digest
    except NoFeasibleCandidate:
        return None


def _mode(candidates: Sequence[Mapping[str, Any]]) -> str:
    modes = sorted({candidate["mode"] for candidate in candidates})
    return modes[0] if len(modes) == 1 else "mixed" if modes else "none"


def _entry(measured: Measured, frontier: Frontier, chosen: str | None) -> dict[str, Any]:
    digest = measured.candidate.digest
    return {
        **measured.candidate.to_json(),
        **with_kept_curves(measured.measurement.to_json()),
        "on_frontier": frontier.on_frontier(measured.candidate),
        "feasible": any(m.candidate.digest == digest for m in frontier.feasible()),
        "chosen": digest == chosen,
        "violations": [text for limit in frontier.budget.limits() for text in _violation(measured, limit)],
    }


def _violation(measured: Measured, limit: Limit) -> list[str]:
    value = finite(measured.measurement.value(limit.name))
    asked = f"{TITLES[limit.name]} {limit.side} {bound(limit)}"
    if value is None:
        return [f"{asked}: {NOT_MEASURED}"]
    return [f"{asked}: came {amount(value, limit.unit)}"] if limit.miss(value) else []
