"""The three files of a mirror run, written from its plain report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeward.report.document import report_json, write_texts
from edgeward.report.plain import plain
from edgeward.report.splits.card import render_split_card
from edgeward.report.splits.page import render_split_page
from edgeward.report.splits.schema import validate_split_report


def split_report(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` as plain JSON that keeps the schema, as it would be read back: keys are sorted.

    Errors: `DataError` listing every departure.
    """
    whole = dict(json.loads(report_json(plain(document))))
    validate_split_report(whole)
    return whole


def write_split_report(directory: str | os.PathLike[str], report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.json`, `report.html` and `CARD.md`; return their paths.

    Everything is rendered before the first file is touched. Errors: `DataError` for an invalid report, `ConfigError`
    for an unusable folder.
    """
    whole = split_report(report)
    texts = {"report.json": report_json(whole), "report.html": render_split_page(whole)}
    return write_texts(Path(directory), {**texts, "CARD.md": render_split_card(whole)})
