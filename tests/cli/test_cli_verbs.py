"""Every verb: what it prints, one JSON document with --json, and its exit code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.cli_runner import run
from edgeward.cli.app import VERBS
from edgeward.job import parse_job
from patience import PATIENCE

JOB = """
schema = 1
recipes = ["none"]
[model]
source = "net.py:build"
[data]
source = "digits"
[train]
epochs = 2
rate = 0.01
[[threats]]
shadows = 4
canaries = 40
kinds = ["mislabelled"]
"""
NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    (folder / "net.py").write_text(NET)
    (folder / "job.toml").write_text(JOB)
    (folder / "tight.toml").write_text(JOB + '[budget]\nfile_bytes = "10B"\n')
    return folder


@pytest.fixture(scope="module")
def protected(folder):
    done = run("protect", folder / "job.toml", "--json")
    assert done.code == 0, done.err
    return done


def test_the_version():
    assert run("--version").out.startswith("edgeward ")
    assert run("--version", "--json").json["edgeward"] == run("version", "--json").json["edgeward"]


def test_without_a_verb_the_verbs_are_listed():
    done = run()
    assert done.code == 0
    assert all(verb in done.out for verb in [*VERBS, "devices", "recipes"])


@pytest.mark.parametrize("verb", [*VERBS, "devices", "recipes"])
def test_every_verb_has_help_and_json(verb):
    done = run(verb, "--help")
    assert done.code == 0
    options = run(verb, "list", "--help").out if verb in ("devices", "recipes") else done.out
    assert "--json" in options


def test_protect_writes_everything(folder, protected):
    document = protected.json
    out = folder / "runs" / "job"
    assert document["workdir"] == str(out)
    assert document["choice"]["recipe"] == "none"
    assert document["candidates"][0]["test_accuracy"] > 0.5
    for name in ("report.html", "report.json", "CARD.md", "bundle", "job.toml", "events.jsonl"):
        assert (out / name).exists(), name
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert all({"time", "event"} <= event.keys() for event in events)


def test_progress_goes_to_stderr_and_quiet_silences_it(folder, protected):
    assert protected.err
    again = run("protect", folder / "job.toml", "--quiet")
    assert again.code == 0, again.err
    assert again.err == ""
    assert "TPR at 1 % FPR" in again.out
    assert "report.html" in again.out


def test_an_infeasible_budget_is_2_and_names_the_limit(folder, protected, tmp_path):
    shutil.copytree(folder / "runs" / "job", tmp_path / "tight")
    done = run("protect", folder / "tight.toml", "--json", "--workdir", tmp_path / "tight")
    assert done.code == 2
    assert "file_bytes at most 10 B" in done.json["error"]["message"]
    assert "nearest miss" in done.err


def test_the_bundle_verifies_and_a_changed_byte_is_3(folder, protected, tmp_path):
    bundle = folder / "runs" / "job" / "bundle"
    assert run("verify", bundle, "--json").json["verified"] is True
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    victim = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    done = run("verify", copy, "--json")
    assert done.code == 3
    assert victim.name in done.json["error"]["message"]
    assert run("verify", bundle, "--expect", "0" * 64).code == 3


def test_a_report_is_shown_and_compared(folder, protected):
    out = folder / "runs" / "job"
    shown = run("report", out, "--json")
    assert shown.code == 0, shown.err
    assert shown.json["candidates"] == protected.json["candidates"]
    compared = run("report", "--compare", out, out, "--json")
    assert compared.code == 0, compared.err
    assert run("report", "--compare", out, out).out
    assert run("report", "--compare", out).code == 1


def test_an_audit_fails_above_its_bound(folder):
    done = run("audit", folder / "job.toml", "--workdir", folder / "audit", "--fail-above", "auc=0.1", "--json")
    assert done.code == 3
    assert "above 0.1" in done.json["exceeded"][0]
    fine = run("audit", folder / "job.toml", "--workdir", folder / "audit", "--fail-above", "tpr@1%=100%")
    assert fine.code == 0, fine.err


def test_the_cost_of_a_net():
    done = run("cost", "net:mlp?features=64&hidden=[32]&classes=10", "--input", "64", "--device", "cortex-m4", "--json")
    assert done.code == 0, done.err
    assert done.json["cost"]["macs"] == 64 * 32 + 32 * 10
    assert "cortex-m4" in run("cost", "net:mlp?features=64", "--input", "64", "--device", "cortex-m4").out


def test_the_cost_of_a_file(folder):
    done = run("cost", f"{folder}/net.py:build", "--input", "64", "--json")
    assert done.json["cost"]["macs"] == 64 * 16 + 16 * 10


def test_devices_and_recipes():
    names = [entry["name"] for entry in run("devices", "list", "--json").json["devices"]]
    assert "cortex-m7" in names
    assert run("devices", "show", names[0], "--json").json["name"] == names[0]
    assert "gecko" in run("recipes", "list").out
    assert run("recipes", "show", "gecko:paper", "--json").json["settings"]["preset"] == "paper"


def test_the_doctor_finds_this_machine_well():
    done = run("doctor", "--json")
    checks = {check["check"]: check for check in done.json["checks"]}
    assert checks["torch"]["state"] == "ok"
    assert checks["native kernels"]["state"] == "ok"
    assert [c for c in done.json["checks"] if c["state"] not in ("ok", "absent")] == []
    assert done.code == 0


def test_the_doctor_names_a_data_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("EDGEWARD_DATA", "no/such/folder")
    done = run("doctor")
    assert done.code == 1
    assert "no/such/folder" in done.out


def test_the_dumped_config_is_a_job(folder):
    done = run("protect", "--demo", "--dump-config", "--seed", 5, "--device", "rpi4")
    job = parse_job(done.out)
    assert (job.seed, job.device) == (5, "rpi4")
    assert run("audit", folder / "job.toml", "--dump-config", "--json").json["job"]["schema"] == 1


def test_the_installed_command_runs():
    command = Path(sys.executable).parent / "edgeward"
    done = subprocess.run(
        [command, "cost", "nonsense", "--input", "3", "--json"], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "ConfigError"
