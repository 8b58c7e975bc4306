"""Finding, running and storing benchmarks.

A benchmark is a module of this folder with `NAME`, `DESCRIPTION` and `run() -> dict`; the dictionary holds at least
`ratio` (peer's figure over ours: larger is better for us), `ours`, `peer` and `unit`. The harness adds the machine,
the versions and the date.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from edgeward.core.errors import UserError, unknown_name

FOLDER = Path(__file__).parent
REQUIRED = ("ratio", "ours", "peer", "unit")


@final
@dataclass(frozen=True)
class Benchmark:
    """One benchmark, known by its source alone; its module is imported when it runs."""

    name: str
    description: str
    module: str

    def run(self) -> dict[str, Any]:
        """Run it, check what it returns, and add where and when it ran."""
        result = dict(importlib.import_module(self.module).run())
        lacking = [key for key in REQUIRED if key not in result]
        if lacking:
            raise UserError(
                f"benchmark '{self.name}' returned an incomplete result",
                expected=", ".join(REQUIRED),
                came=f"no {', '.join(lacking)}",
                fix=f"add them to run() of {self.module}",
            )
        return {**result, "name": self.name, **circumstances()}


def find(folder: Path = FOLDER) -> dict[str, Benchmark]:
    """Return every benchmark of `folder`, read from the sources without importing them."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        constants = _constants(path)
        if "NAME" in constants:
            name = constants["NAME"]
            found[name] = Benchmark(name, constants.get("DESCRIPTION", ""), f"{folder.name}.{path.stem}")
    return found


def named(name: str, known: Mapping[str, Benchmark]) -> Benchmark:
    """Return the benchmark called `name`, or raise an error with the nearest names."""
    if name not in known:
        raise unknown_name("benchmark", name, known)
    return known[name]


def circumstances() -> dict[str, Any]:
    """Return the machine's fingerprint, the versions, and the date (UTC)."""
    from edgeward.measure.fingerprint import environment

    return {"environment": environment(), "date": datetime.now(timezone.utc).date().isoformat()}


def save(result: Mapping[str, Any], folder: Path = FOLDER / "results") -> Path:
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


def _constants(path: Path) -> dict[str, str]:
    """Return the module-level text constants of a source file."""
    found = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[target.id] = value.value
    return found
