"""Results in files, and only of sources that a commit names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeward.core.errors import UserError

FOLDER = Path(__file__).parent / "results"
CHANGED = "+changed"


def require_clean(*, allow_dirty: bool) -> None:
    """Refuse to go on, before anything is measured, where the sources are not those of a commit. Raises: `UserError`.

    `allow_dirty` lets it through; the result's commit then ends in "+changed".
    """
    from edgeward.measure.fingerprint import source_commit

    commit = source_commit()
    if allow_dirty or (commit is not None and not commit.endswith(CHANGED)):
        return
    raise UserError(
        "a result of these sources may not be stored",
        expected="a checkout of the repository without changes and without new files (stored results aside)",
        came="no checkout" if commit is None else f"changes to {commit.removesuffix(CHANGED)[:12]}",
        fix="commit them, or leave --save out, or mark the result with --allow-dirty",
    )


def save(result: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write a result to `<folder>/<name>.json` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(as_json(result), encoding="utf-8")
    os.replace(partial, path)
    return path


def as_json(document: Any) -> str:
    """Return readable JSON with a final newline."""
    return json.dumps(document, indent=2, sort_keys=True, default=str) + "\n"
