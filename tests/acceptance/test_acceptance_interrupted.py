"""A run that is killed or interrupted: the rerun resumes and ends with the frontier of a run that never was."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acceptance.acceptance_jobs import outcome, write_job
from cli.cli_runner import run
from patience import PATIENCE

COMMAND = Path(sys.executable).parent / "edgeward"
EPOCHS = 120
JOB = {
    "recipes": ["none", {"name": "early_stop", "schedule": {"epochs": 3}}],
    "train": {"epochs": EPOCHS, "rate": 1e-4, "batch": 70},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    job = write_job(tmp_path_factory.mktemp("whole"), **JOB)
    done = run("protect", job)
    assert done.code == 0, done.err
    return job.parent / "runs" / "job"


@contextlib.contextmanager
def listening():
    """Let child processes hear Ctrl-C, which a shell turns off for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stopped(folder, at: str, how: signal.Signals) -> tuple[int, str]:
    """Start the run in a process of its own, send it `how` when its output starts a line with `at`."""
    job = write_job(folder, **JOB)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with listening(), subprocess.Popen([COMMAND, "protect", job], env=environment, **pipes) as process:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith(at):
                process.send_signal(how)
                break
        seen += process.stderr.readlines()
        return process.wait(timeout=PATIENCE), "".join(seen)


def resumed(folder):
    """Run the job again; return its output, its candidates by whether they came from the store, and what it found."""
    out = folder / "runs" / "job"
    log = out / "events.jsonl"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    done = run("protect", folder / "job.toml")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    known = {event["candidate"]["recipe"]: event["resumed"] for event in events if event["event"] == "measured"}
    return done.err, known, out


def test_killed_after_the_first_candidate(whole, tmp_path):
    code, _ = stopped(tmp_path, "candidates: 1/2", signal.SIGKILL)
    assert code == -signal.SIGKILL
    err, known, out = resumed(tmp_path)
    assert known == {"none": True, "early_stop": False}
    assert "none: dense" not in err
    assert outcome(out) == outcome(whole)


def test_killed_in_the_middle_of_training(whole, tmp_path):
    code, seen = stopped(tmp_path, f"none: dense: {EPOCHS // 2}/", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert f"none: dense: {EPOCHS}/" not in seen
    err, known, out = resumed(tmp_path)
    assert known == {"none": False, "early_stop": False}
    first = next(line for line in err.splitlines() if line.startswith("none: dense: "))
    assert int(first.removeprefix("none: dense: ").split("/")[0]) > EPOCHS // 2 - 40
    assert outcome(out) == outcome(whole)
    assert not [path for path in out.rglob("*") if ".partial" in path.name or ".training" in path.name]


def test_an_interrupt_leaves_an_unfinished_report_and_130(tmp_path):
    code, seen = stopped(tmp_path, "candidates: 1/2", signal.SIGINT)
    assert code == 130
    assert "Traceback" not in seen
    assert "run again to resume" in seen
    out = tmp_path / "runs" / "job"
    found = outcome(out)
    assert found["finished"] is False
    assert [candidate["recipe"] for candidate in found["candidates"]] == ["none"]
    assert not list(out.rglob("*.partial"))


def test_an_interrupt_before_anything_is_measured_leaves_a_report_too(tmp_path):
    code, _ = stopped(tmp_path, "none: dense: 12/", signal.SIGINT)
    assert code == 130
    found = outcome(tmp_path / "runs" / "job")
    assert (found["finished"], found["candidates"]) == (False, [])
