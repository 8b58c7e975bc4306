"""Reading a report back: from a run's folder or its `report.json`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from edgeward.core.errors import ConfigError, DataError
from edgeward.report.plain import plain
from edgeward.report.schema import SCHEMA_NAME, validate_report

_MAX_BYTES = 64 * 2**20


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the report in `path`, a run's folder or a `report.json`, checked against the schema.

    A report is untrusted input: it is bounded in size, depth and length before anything is rendered from it.
    Errors: `ConfigError` where there is no such file or it was written by a newer edgeward; `DataError` where it is
    truncated, not JSON, or not an edgeward report.
    """
    file = located(Path(path))
    document = parsed(file)
    name = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name.startswith("edgeward."):
        raise DataError(
            f"{file} is JSON, but not a report of edgeward",
            expected=f'an object with "schema": "{SCHEMA_NAME}"',
            came=f"{type(document).__name__} with schema {name!r:.80}",
            fix="give the folder of a run, or its report.json",
        )
    if name != SCHEMA_NAME:
        raise _other_version(file, name)
    checked = plain(document)
    validate_report(checked)
    return dict(checked)


def located(path: Path) -> Path:
    """Return the `report.json` of a run's folder, or the file itself. Errors: `ConfigError` where there is none."""
    file = path / "report.json" if path.is_dir() else path
    try:
        if file.is_file() and file.stat().st_size <= _MAX_BYTES:
            return file
        came = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
    except OSError as error:
        came = str(error.strerror)
    raise ConfigError(
        f"there is no report at {file}",
        expected=f"the folder of a run, or a report.json of at most {_MAX_BYTES // 2**20} MiB",
        came=came,
        fix="run `edgeward protect JOB.toml` first, or correct the path",
    )


def parsed(file: Path) -> Any:
    """Return the JSON in `file`; constants that are not JSON are refused. Errors: `DataError` where it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        came = str(error.strerror)
    except json.JSONDecodeError as error:
        came = f"{error.msg} at line {error.lineno} column {error.colno}"
    except RecursionError:
        came = "nesting too deep"
    except ValueError as error:
        came = str(error)[:200]
    raise DataError(
        f"{file} cannot be read as JSON: it is truncated or damaged",
        expected="a complete report.json in UTF-8",
        came=came,
        fix="run the job again; finished candidates are kept",
    )


def _refuse(constant: str) -> float:
    raise ValueError(f"the constant {constant} is not JSON")


def _other_version(file: Path, name: str) -> ConfigError | DataError:
    match = re.fullmatch(r"edgeward\.report/(\d{1,9})", name)
    if match and int(match.group(1)) > int(SCHEMA_NAME.rsplit("/", 1)[1]):
        return ConfigError(
            f"{file} was written by a newer edgeward",
            expected=SCHEMA_NAME,
            came=name,
            fix="upgrade: pip install --upgrade edgeward",
        )
    return DataError(
        f"{file} is another kind of edgeward document",
        expected=SCHEMA_NAME,
        came=repr(name)[:80],
        fix="give the folder of a run, or its report.json",
    )
