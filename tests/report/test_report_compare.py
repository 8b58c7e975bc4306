"""Comparing two reports: matched by recipe and settings, with intervals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fixture import RUNS, frontier, make_report

from edgeward.core.errors import DataError
from edgeward.report import compare
from edgeward.report.compare import Change


def test_a_report_equals_itself() -> None:
    result = compare(make_report(), make_report())
    assert result.differences == ()
    assert [row.where for row in result.rows] == ["both"] * len(RUNS)
    for row in result.rows:
        assert (row.accuracy.delta, row.leakage.delta, row.file_bytes.delta) == (0.0, 0.0, 0.0)
        assert row.accuracy.overlap is True
        assert row.file_bytes.overlap is None


def test_changes_are_found_and_judged_by_their_intervals() -> None:
    changed = tuple((*run[:2], 0.80, 0.6, *run[4:5], 2 * run[5], *run[6:]) if run[0] == "int8" else run for run in RUNS)
    job = {"seed": 1}
    result = compare(make_report(), make_report(frontier=frontier(runs=changed[1:]), job=job))
    rows = {row.recipe: row for row in result.rows}
    assert rows["none"].where == "only a"
    assert rows["int8"].accuracy.delta == pytest.approx(0.80 - 0.967)
    assert (rows["int8"].accuracy.overlap, rows["int8"].leakage.overlap) == (False, False)
    assert rows["int8"].file_bytes.delta == 14_620
    assert rows["gecko:paper"].accuracy.overlap is True
    assert "seed: 0 -> 1" in result.differences
    text = result.to_text()
    assert "96.7 % -> 80.0 % (-16.7 points, intervals apart)" in text
    assert "14.3 KiB -> 28.6 KiB (+14.3 KiB)" in text


def test_other_settings_are_other_candidates() -> None:
    other = tuple((run[0], {**run[1], "x": 1}, *run[2:]) for run in RUNS[:1])
    result = compare(make_report(frontier=frontier(runs=RUNS[:1])), make_report(frontier=frontier(runs=other)))
    assert [row.where for row in result.rows] == ["only a", "only b"]


def test_the_plain_form_is_json_and_the_table_is_rectangular() -> None:
    result = compare(make_report(), make_report(finished=False))
    plain = json.loads(json.dumps(result.to_json()))
    assert plain["differences"] == ["finished: yes -> no"]
    titles, rows = result.table()
    assert all(len(row) == len(titles) for row in rows)


@given(*[st.one_of(st.none(), st.floats(-1e9, 1e9))] * 2)
def test_a_delta_needs_both_ends(a: float | None, b: float | None) -> None:
    change = Change(a, b, "B")
    assert (change.delta is None) == (a is None or b is None)
    assert str(change)


def test_a_damaged_report_is_refused() -> None:
    with pytest.raises(DataError):
        compare(make_report(), {"schema": "edgeward.report/2"})
