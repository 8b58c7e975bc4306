"""Reading back: every bad file is one clear error."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_fixture import RUNS, frontier, make_report

from edgeward.core.errors import ConfigError, DataError, EdgewardError, UserError
from edgeward.report import read_report, report_json

TEXT = report_json(make_report(frontier=frontier(runs=RUNS[5:6])))


def test_a_folder_and_a_file_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(TEXT)
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == json.loads(TEXT)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", DataError, "truncated or damaged"),
        (TEXT[: len(TEXT) // 2], DataError, "truncated or damaged"),
        ("[" * 100_000, DataError, "truncated or damaged"),
        ('{"schema": NaN}', DataError, "truncated or damaged"),
        ("[1, 2]", DataError, "not a report"),
        ('{"schema": 3}', DataError, "not a report"),
        ('{"schema": "edgeward.bundle/1"}', DataError, "another kind"),
        ('{"schema": "edgeward.report/3"}', ConfigError, "newer edgeward"),
        ('{"schema": "edgeward.report/2"}', DataError, "'candidates' is missing"),
        ('{"schema": "edgeward.report/2", "job": ' + "1" * 5000 + "}", DataError, "truncated or damaged"),
    ],
    ids=["empty", "half", "deep", "nan", "list", "number", "bundle", "newer", "hollow", "digits"],
)
def test_bad_files_are_named_for_what_they_are(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(error, match=words) as caught:
        read_report(tmp_path)
    assert isinstance(caught.value, EdgewardError)
    assert caught.value.fix


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no report at"):
        read_report(tmp_path)
    with pytest.raises(ConfigError, match="no report at"):
        read_report("nowhere\0at all")
    (tmp_path / "report.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="damaged"):
        read_report(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, len(TEXT)), length=st.integers(0, 40), junk=st.text(max_size=8))
def test_damage_anywhere_is_an_error_of_ours_or_harmless(tmp_path: Path, start: int, length: int, junk: str) -> None:
    (tmp_path / "report.json").write_text(TEXT[:start] + junk + TEXT[start + length :], encoding="utf-8")
    with contextlib.suppress(UserError):
        read_report(tmp_path)
