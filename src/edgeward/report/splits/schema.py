"""The schema of a mirror run's `report.json`, and the check against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from edgeward.core.errors import DataError
from edgeward.report.schema import departures
from edgeward.report.wording import finite

SPLIT_SCHEMA_NAME = "edgeward.mirror/1"


@cache
def _schema_text() -> str:
    return resources.files("edgeward.report.splits").joinpath("schema.json").read_text(encoding="utf-8")


def split_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a mirror run's `report.json`."""
    return dict(json.loads(_schema_text()))


def words_of(kind: str) -> tuple[str, ...]:
    """Return the words that the schema allows for `kind` of a protection, in its order."""
    return tuple(split_schema()["$defs"]["protection"]["properties"][kind]["enum"])


def split_violations(report: object) -> list[str]:
    """Return where `report` departs from the schema; empty where it conforms.

    Beyond the schema: names of splits differ, `chosen` is one of them, a split is called confidential only where its
    numbers say so, and every split was attacked with the same budgets.
    """
    found = departures(report, split_schema())
    return found or (_cross_check(report) if isinstance(report, dict) else [])


def validate_split_report(report: object) -> None:
    """Refuse a report that departs from the schema; one `DataError` lists every place."""
    found = split_violations(report)
    if found:
        more = [f"... and {len(found) - 20} more"] if len(found) > 20 else []
        raise DataError(
            f"this is not a valid {SPLIT_SCHEMA_NAME} document:\n    " + "\n    ".join([*found[:20], *more]),
            expected="the fields of docs/mirror-report.md",
            came=f"{len(found)} departure{'s' if len(found) != 1 else ''}",
            fix="run `edgeward mirror` again; what is trained is kept",
        )


def _cross_check(report: Mapping[str, Any]) -> list[str]:
    names = [split["name"] for split in report["splits"]]
    found = [
        f"report.splits: the name {n!r:.80} occurs twice" for n in sorted({n for n in names if names.count(n) > 1})
    ]
    if report["chosen"] is not None and report["chosen"] not in names:
        found.append(f"report.chosen: expected the name of a split, came {report['chosen']!r:.80}")
    for i, split in enumerate(report["splits"]):
        found += _check_split(f"report.splits[{i}]", split, report["budgets"])
    return found


def _check_split(place: str, split: Mapping[str, Any], budgets: list[int]) -> list[str]:
    stealing = split["stealing"]
    found = []
    if [theft["budget"] for theft in stealing["budgets"]] != budgets:
        found.append(f"{place}.stealing.budgets: expected {', '.join(map(str, budgets))} queries each")
    ratios = [finite(theft["ratio_to_black_box"]["value"]) for theft in stealing["budgets"]]
    held = not stealing["trusted_disguises"] and all(r is not None and r <= stealing["bar"] for r in ratios)
    if (split["confidential"] or stealing["confidential"]) and not held:
        found.append(f"{place}.confidential: true, but a stealing ratio is above {stealing['bar']} or missing")
    direct, authorised = stealing["direct_accuracy"], finite(split["authorised_accuracy"]["value"])
    if split["confidential"] and direct and (finite(direct["value"]) or 0.0) >= (authorised or 0.0):
        found.append(f"{place}.confidential: true, but the visible part alone answers as well")
    asked = [(cell["asset"], cell["phase"], cell["adversary"]) for cell in split["assets"]["protections"]]
    found += [f"{place}.assets: {' / '.join(key)} twice" for key in sorted({k for k in asked if asked.count(k) > 1})]
    return found
