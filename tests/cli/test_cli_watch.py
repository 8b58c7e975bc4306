"""Watchers: plain lines, live bars, and the event log."""

import io
import json

from rich.console import Console
from rich.progress import Progress

from edgeward.cli.watch import COLUMNS, Bars, EventLog, Lines, Several, watching


def test_lines_are_few(capsys):
    watcher = Lines()
    for done in range(1, 1001):
        watcher.step("train", done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "train: 1000/1000"


def test_every_step_of_a_short_task_has_a_line(capsys):
    watcher = Lines()
    for done in range(1, 4):
        watcher.step("candidates", done, 3, f"c{done}")
    assert capsys.readouterr().err.splitlines() == [f"candidates: {d}/3 c{d}" for d in (1, 2, 3)]


def test_a_task_of_no_steps_is_no_error(capsys):
    Lines().step("nothing", 0, 0)


def test_the_log_appends_json_lines(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.event("measured", {"recipe": "none", "auc": float("nan")})
    log.step("train", 1, 2)
    log.step("train", 2, 2)
    EventLog(tmp_path / "events.jsonl").event("again", {})
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["measured", "finished", "again"]
    assert events[0]["auc"] is None


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path):
    EventLog(tmp_path / "absent" / "events.jsonl").event("x", {})


def test_bars_take_any_text():
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    with Progress(*COLUMNS, console=console) as progress:
        bars = Bars(progress)
        bars.step("[/red] task", 1, 2, "[note]")
        bars.step("[/red] task", 2, 2)
    assert "[/red] task" in stream.getvalue()


def test_quiet_still_logs(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with watching(tmp_path / "run", quiet=True) as watcher:
        assert isinstance(watcher, Several)
        watcher.step("train", 1, 1)
        watcher.event("x", {})
    assert capsys.readouterr().err == ""
    assert len((tmp_path / "run" / "events.jsonl").read_text().splitlines()) == 2


def test_watching_makes_no_folder(tmp_path):
    with watching(tmp_path / "run", quiet=True) as watcher:
        watcher.event("x", {})
    assert not (tmp_path / "run").exists()
