"""The other verbs, budgets and bounds: exit codes, one JSON document with --json, kebab-case flags."""

import json
import subprocess
import sys

import pytest

from acceptance.acceptance_jobs import outcome, write_job
from cli.cli_runner import run
from patience import PATIENCE


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job that has run, without a budget."""
    job = write_job(tmp_path_factory.mktemp("verbs"))
    done = run("protect", job, "--quiet")
    assert done.code == 0, done.err
    return job


@pytest.fixture(scope="module")
def ran(job):
    return job.parent / "runs" / "job"


def test_an_infeasible_budget_is_2_with_the_binding_constraint_and_the_nearest_miss(job, ran):
    assert (ran / "bundle").exists()
    write_job(job.parent, name="tight", budget={"accuracy": "99.9%", "file_bytes": "10B"})
    done = run("protect", job.parent / "tight.toml", "--workdir", ran, "--json", "--quiet")
    assert done.code == 2
    assert done.json["error"]["exit_code"] == 2
    message = done.json["error"]["message"]
    assert "file_bytes at most 10 B" in message
    assert "nearest miss" in message
    found = outcome(ran)
    assert (found["finished"], found["chosen"]) == (True, None)
    assert found["candidates"][0]["feasible"] is False
    assert found["candidates"][0]["violations"]
    # The bundle that an earlier run chose does not stay beside a report that chooses none.
    assert not (ran / "bundle").exists()


def test_a_budget_that_the_declared_cost_breaks_is_answered_by_a_measurement(tmp_path):
    done = run("protect", write_job(tmp_path, budget={"file_bytes": "10B"}), "--json", "--quiet")
    assert done.code == 2
    assert [candidate["recipe"] for candidate in outcome(tmp_path / "runs" / "job")["candidates"]] == ["none"]


def test_an_audit_above_its_bound_is_3(job, ran):
    done = run("audit", job, "--workdir", ran, "--fail-above", "auc=0.0001", "--json", "--quiet")
    assert done.code == 3, done.err
    assert done.json["exceeded"]
    assert "claim failed: none: auc" in done.err
    assert run("audit", job, "--workdir", ran, "--fail-above", "nonsense=1", "--json").json["error"]["exit_code"] == 1


def test_a_report_is_shown_and_compared(ran):
    assert run("report", ran).code == 0
    assert run("report", "--compare", ran, ran).out
    for arguments in (["report", ran, "--json"], ["report", "--compare", ran, ran, "--json"]):
        assert isinstance(run(*arguments).json, dict)
    assert run("report", "--compare", ran, ran.parent, "--json").code == 1


def test_a_damaged_report_is_1(ran, tmp_path):
    whole = (ran / "report.json").read_text()
    for text in (whole[:-20], "{}", "[]", "null", whole.replace('"finished": true', '"finished": "yes"'), "\0"):
        (tmp_path / "report.json").write_text(text)
        done = run("report", tmp_path, "--json")
        assert done.code == 1, text[:50]
        assert done.json["error"]["fix"]
        assert "Traceback" not in done.err
        assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["devices", "list"],
        ["devices", "show", "rpi4"],
        ["recipes", "list"],
        ["recipes", "show", "gecko:crossfit"],
        ["cost", "net:mlp?features=12&hidden=[8]&classes=3", "--input", "12"],
        ["cost", "net:lenet", "--input", "1x28x28", "--device", "cortex-m4"],
        ["cost", "net:vit?size=8&dimension=8&depth=1&heads=2", "--input", "3x8x8"],
        ["cost", "net:early_exit_cnn", "--input", "1x16x16"],
        ["version"],
        ["protect", "--demo", "--dump-config"],
    ],
)
def test_what_only_reads_answers_in_both_forms(arguments):
    plain, document = run(*arguments), run(*arguments, "--json")
    assert (plain.code, document.code) == (0, 0), plain.err + document.err
    assert plain.out
    assert isinstance(document.json, dict)


def test_flags_are_kebab_case():
    for verb in ("protect", "audit", "demo", "cost", "verify", "report", "doctor"):
        shown = run(verb, "--help").out
        flags = [word.strip(",") for word in shown.split() if word.startswith("--")]
        assert flags
        assert not [flag for flag in flags if "_" in flag.split("=")[0]]


def test_the_command_prints_one_document_and_leaves_with_its_code(tmp_path):
    job = write_job(tmp_path, device={"name": "nowhere"})
    command = [sys.executable, "-c", "import sys; from edgeward.cli import main; sys.exit(main())", "protect", job]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["exit_code"] == 1
    assert "Traceback" not in done.stderr
