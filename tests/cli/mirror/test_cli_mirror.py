"""`mirror` writes a split, or says why none was chosen; refusals with reason and exit code."""

import json
import shutil
import subprocess
import sys

import pytest

from cli.cli_runner import run
from cli.mirror.mirror_runs import arguments
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.randomness import Seed
from edgeward.data import load_source

pytest_plugins = ["cli.mirror.mirror_fixtures"]

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")


def test_everything_is_written_and_json_is_one_document(folder, mirrored):
    document, out = mirrored.json, folder / "run"
    assert document["chosen"] == "Tiny one"
    assert document["splits"][0]["stealing"]["seeds"] == 1
    for name in (
        "report.json",
        "report.html",
        "CARD.md",
        "bundle/manifest.json",
        "bundle/CARD.md",
        "device/sealing.key",
    ):
        assert (out / name).is_file(), name
    assert "Tiny one" in (out / "bundle" / "CARD.md").read_text()
    stored = json.loads((out / "report.json").read_text())
    assert stored["splits"][0]["name"] == "Tiny one"
    assert stored["command"]


def test_no_split_within_the_limits_is_2_and_names_the_nearest(folder, mirrored, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    done = run(*arguments(folder, "--workdir", tmp_path / "run", "--drop", "0%"))
    assert done.code == 2
    assert "nearest: Tiny one with accuracy" in done.err
    assert "bundle of an earlier run" in done.out
    assert "no split was chosen" in (tmp_path / "run" / "CARD.md").read_text()
    assert json.loads((tmp_path / "run" / "report.json").read_text())["chosen"] is None


def test_a_finished_run_is_shown_again(folder, mirrored, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    done = run("report", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Tiny one" in done.out
    assert page.read_bytes() == before
    (tmp_path / "run" / "report.json").write_text('{"schema": "edgeward.mirror/1"}')
    assert run("report", tmp_path / "run").code == 1


def test_what_is_left_out_is_told(folder):
    done = run("mirror", f"{folder}/net.py:net", "--data", folder / "data.npz", "--device", "cortex-m7")
    assert "no --weights" in done.err
    assert "no --public" in done.err
    assert done.code == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--queries", "many"], "query budgets"),
        (["--attackers", "0"], "attackers"),
        (["--strategy", "absent.json"], "strategy file"),
        (["--device", "cortex-m7"], "secure_world"),
        (["--preset", "fathful"], "preset"),
        (["--drop", "2"], "largest_drop"),
        (["--queries", ",".join(map(str, range(2, 60)))], "query budgets"),
    ],
)
def test_a_mirror_that_cannot_be_made_is_1(folder, changed, message):
    done = run(*arguments(folder, *changed, "--json"))
    assert done.code == 1
    assert message in done.json["error"]["message"]


def test_thieves_who_know_every_label_already_ask_for_none(folder, result, tmp_path):
    asked = len(load_source(str(folder / "data.npz"), seed=Seed(0).child("data"), canaries=0).shadow)
    more = ["--queries", asked, "--attackers", 2, "--drop", "100%", "--overhead", "500%", "--json"]
    shutil.copytree(folder / "run" / "training", tmp_path / "run" / "training")
    done = run(*arguments(folder, *more, "--workdir", tmp_path / "run"))
    assert done.code == 0, done.err
    assert done.json["splits"][0]["stealing"]["victim_queries"] == asked


def test_a_split_that_loses_too_much_is_not_chosen(folder, result):
    assert result.terms.missed(result.measured[0]) == ()
    strict = type(result.terms)(result.terms.limits, result.terms.victim, -1.0)
    with pytest.raises(NoFeasibleCandidate, match="Tiny one with accuracy"):
        strict.choose(result.measured)


def test_the_doctor_lists_what_split_deployments_need():
    checks = {check["check"]: check["state"] for check in run("doctor", "--json").json["checks"]}
    assert {checks[name] for name in ("wasmtime", "cryptography", "unicorn", "cwt", "secure worlds")} <= {
        "ok",
        "absent",
    }


def test_the_command_line_starts_without_the_secure_worlds():
    code = (
        "import sys, edgeward.cli; edgeward.cli.main(['--help']);"
        "bad = {'wasmtime', 'unicorn', 'cwt', 'cryptography', 'ziglang', 'pyseccomp', 'matplotlib'} & set(sys.modules);"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
