"""Finding and running benchmarks.

A benchmark is a module of this folder with `NAME`, `DESCRIPTION` and `run() -> dict`; the dictionary holds at least
`ratio` (peer's figure over ours: larger is better for us), `ours` and `peer`, all three numbers, and `unit`. One that
takes hours says why in `SLOW`. The harness adds the machine, the versions, the date and how long it took.
"""

from __future__ import annotations

import ast
import importlib
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from numbers import Real
from pathlib import Path
from typing import Any, final

from edgeward.core.errors import UserError, unknown_name

FOLDER = Path(__file__).parent
FIGURES = ("ratio", "ours", "peer")


@final
@dataclass(frozen=True)
class Benchmark:
    """One benchmark, known by its source alone; its module is imported when it runs."""

    name: str
    description: str
    module: str
    slow: str = ""
    """Why it takes hours; empty for the others."""

    def run(self) -> dict[str, Any]:
        """Run it, check what it returns, and add where, when and how long it ran."""
        start, load = time.monotonic(), os.getloadavg()[0]
        result = dict(importlib.import_module(self.module).run())
        problems = faults(result)
        if problems:
            raise UserError(
                f"benchmark '{self.name}' returned a result of another shape",
                expected=f"finite numbers at {', '.join(FIGURES)}, a text at unit",
                came=", ".join(problems),
                fix=f"let run() of {self.module} return one number for each; tables go under keys of their own",
            )
        took = {"seconds_of_the_run": round(time.monotonic() - start, 1), "load_average_at_start": load}
        return {**result, "name": self.name, **took, **circumstances()}


def faults(result: Mapping[str, Any]) -> list[str]:
    """Return what keeps `result` from being told in one line and compared: an empty list for most."""
    found = [_fault(key, result.get(key)) for key in FIGURES]
    unit = result.get("unit")
    if not isinstance(unit, str) or not unit:
        found.append("no unit" if unit is None else f"unit = {unit!r}")
    return [fault for fault in found if fault]


def _fault(key: str, value: object) -> str:
    if value is None:
        return f"no {key}"
    if not isinstance(value, Real) or isinstance(value, bool):
        return f"{key} of type {type(value).__name__}"
    return "" if math.isfinite(value) else f"{key} = {value}"


def find(folder: Path = FOLDER) -> dict[str, Benchmark]:
    """Return every benchmark of `folder`, read from the sources without importing them."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        constants = _constants(path)
        if "NAME" in constants:
            name, module = constants["NAME"], f"{folder.name}.{path.stem}"
            found[name] = Benchmark(name, constants.get("DESCRIPTION", ""), module, constants.get("SLOW", ""))
    return found


def named(name: str, known: Mapping[str, Benchmark]) -> Benchmark:
    """Return the benchmark called `name`, or raise an error with the nearest names."""
    if name not in known:
        raise unknown_name("benchmark", name, known)
    return known[name]


def chosen(names: Iterable[str], known: Mapping[str, Benchmark]) -> list[Benchmark]:
    """Return the benchmarks called `names`, each once. Raises: `UserError`."""
    return [named(name, known) for name in dict.fromkeys(names)]


def circumstances() -> dict[str, Any]:
    """Return the machine's fingerprint, the versions, and the date (UTC)."""
    from edgeward.measure.fingerprint import environment

    return {"environment": environment(), "date": datetime.now(timezone.utc).date().isoformat()}


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
