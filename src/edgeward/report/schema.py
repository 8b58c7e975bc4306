"""The schema of `report.json`, and a small check against it that needs no further package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, no_type_check

from edgeward.core.errors import DataError

SCHEMA_NAME = "edgeward.report/2"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def _schema_text() -> str:
    return resources.files("edgeward.report").joinpath("schema.json").read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `report.json`."""
    return dict(json.loads(_schema_text()))


def violations(report: object) -> list[str]:
    """Return where `report` departs from the schema, as `place: expected ..., came ...`; empty where it conforms.

    Only the keywords that the schema uses are read. Beyond the schema, candidate ids must differ, at most one candidate
    is chosen, and `chosen` must be its id.
    """
    found = departures(report, schema())
    if not found and isinstance(report, dict):
        found = _cross_check(report)
    return found


def departures(document: object, rules: Mapping[str, Any]) -> list[str]:
    """Return where `document` departs from the JSON Schema `rules`; only the keywords used in this room are read."""
    found: list[str] = _check(document, rules, rules, "report")
    return found


def validate_report(report: object) -> None:
    """Refuse a report that departs from the schema; one `DataError` lists every place."""
    found = violations(report)
    if found:
        more = [f"... and {len(found) - 20} more"] if len(found) > 20 else []
        raise DataError(
            f"this is not a valid {SCHEMA_NAME} document:\n    " + "\n    ".join([*found[:20], *more]),
            expected="the fields of docs/report-schema.md",
            came=f"{len(found)} departure{'s' if len(found) != 1 else ''}",
            fix="rewrite the report with `edgeward report`, or run the job again",
        )


def _cross_check(report: Mapping[str, Any]) -> list[str]:
    ids = [candidate["id"] for candidate in report["candidates"]]
    found = [f"report.candidates: the id {i!r:.80} occurs twice" for i in sorted({i for i in ids if ids.count(i) > 1})]
    marked = [candidate["id"] for candidate in report["candidates"] if candidate["chosen"]]
    if marked != ([] if report["chosen"] is None else [report["chosen"]]):
        found.append(f"report.chosen: expected the one candidate marked chosen, came {report['chosen']!r:.80}")
    return found


# Called for each of the tens of thousands of values of a report: to check the types of their arguments at run time, as
# the tests do elsewhere, would take far longer than the calls.
@no_type_check
def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float) and kind == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


@no_type_check
def _check(value: object, rule: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    if "$ref" in rule:
        return _check(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root, path)
    if "anyOf" in rule:
        tried = [_check(value, option, root, path) for option in rule["anyOf"]]
        return min(tried, key=len) if all(tried) else []
    if "const" in rule and value != rule["const"]:
        return [f"{path}: expected {rule['const']!r}, came {value!r:.60}"]
    if "enum" in rule and not (isinstance(value, str) and value in rule["enum"]):
        return [f"{path}: expected one of {', '.join(rule['enum'])}, came {value!r:.60}"]
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{path}: expected {' or '.join(kinds)}, came {type(value).__name__}"]
    if isinstance(value, dict):
        return _check_object(value, rule, root, path)
    if isinstance(value, list):
        return _check_array(value, rule, root, path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _check_range(value, rule, path)
    return []


@no_type_check
def _check_object(value: dict[str, Any], rule: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    found = [f"{path}: '{name}' is missing" for name in rule.get("required", []) if name not in value]
    known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
    for name, item in value.items():
        here = f"{path}.{name[:60]}"
        if name in known:
            found += _check(item, known[name], root, here)
        elif others is False:
            found.append(f"{here}: is not a known name")
        elif isinstance(others, dict):
            found += _check(item, others, root, here)
    return found


@no_type_check
def _check_array(value: list[Any], rule: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    low, high = rule.get("minItems", 0), rule.get("maxItems", float("inf"))
    if not low <= len(value) <= high:
        return [f"{path}: expected {low} to {high} entries, came {len(value)}"]
    items = rule.get("items", {})
    return [problem for i, item in enumerate(value) for problem in _check(item, items, root, f"{path}[{i}]")]


@no_type_check
def _check_range(value: float, rule: Mapping[str, Any], path: str) -> list[str]:
    low, high = rule.get("minimum", float("-inf")), rule.get("maximum", float("inf"))
    return [] if low <= value <= high else [f"{path}: expected a number from {low} to {high}, came {value!r:.60}"]
