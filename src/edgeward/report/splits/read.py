"""Reading the report of a mirror run back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeward.report.read import located, parsed
from edgeward.report.splits.document import split_report
from edgeward.report.splits.schema import SPLIT_SCHEMA_NAME


def read_split_report(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the report of a mirror run in `path`, a run's folder or a `report.json`; None where it is of another kind.

    It is untrusted input, as for `read_report`. Errors: `ConfigError` where there is no report, `DataError` where it is
    damaged or departs from its schema.
    """
    document = parsed(located(Path(path)))
    if not isinstance(document, dict) or document.get("schema") != SPLIT_SCHEMA_NAME:
        return None
    return split_report(document)
