"""The small check agrees with a full JSON Schema implementation on damaged reports."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixture import RUNS, frontier, make_report

from edgeward.core.errors import DataError
from edgeward.report import schema, validate_report
from edgeward.report.schema import violations

SMALL: dict[str, Any] = json.loads(json.dumps(make_report(frontier=frontier(runs=RUNS[5:6]))))
for _attack in (SMALL["candidates"][0]["strongest_attack"], *SMALL["candidates"][0]["attacks"]):
    _attack["roc"] = _attack["roc"][:2]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in items for p in places(item, (*path, key)))]


PLACES = [p for p in places(SMALL) if p]
JUNK = st.sampled_from([None, True, 0, -1, 2.5, 3.0, "", "host", [], [1, 2], {}, {"value": 1}, "edgeward.report/2"])


@settings(max_examples=120, deadline=None)
@given(place=st.sampled_from(PLACES), junk=JUNK, remove=st.booleans())
def test_the_small_check_agrees_with_jsonschema(place: tuple[Any, ...], junk: Any, remove: bool) -> None:
    damaged = copy.deepcopy(SMALL)
    inner = damaged
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = junk
    ours = [
        v
        for v in violations(damaged)
        if not v.startswith(("report.chosen: expected the one", "report.candidates: the id"))
    ]
    assert bool(ours) == (not VALIDATOR.is_valid(damaged)), (place, ours)


def test_all_departures_are_listed_together() -> None:
    report = make_report()
    report["mode"] = "safe"
    report["candidates"][0]["test_accuracy"] = "high"
    report["budget"] = {"acuracy": 0.9}
    with pytest.raises(DataError) as caught:
        validate_report(report)
    for words in ("report.mode", "candidates[0].test_accuracy", "report.budget.acuracy", "3 departures"):
        assert words in str(caught.value)


def test_the_chosen_id_must_be_marked() -> None:
    report = make_report()
    report["chosen"] = report["candidates"][0]["id"]
    with pytest.raises(DataError, match="marked chosen"):
        validate_report(report)


def test_ids_must_differ() -> None:
    report = make_report()
    report["candidates"].append(copy.deepcopy(report["candidates"][0]))
    with pytest.raises(DataError, match="occurs twice"):
        validate_report(report)


@pytest.mark.parametrize("value", [None, [], "report", 3, {}])
def test_other_values_are_no_report(value: Any) -> None:
    assert violations(value)
