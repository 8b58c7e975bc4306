"""`mirror`, `run` and `verify` on a split: one answer in every tier, and refusals with reason and exit code."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import edgeward
from cli.cli_runner import run
from edgeward.attacks.extraction import Attacker
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.split_executable import normal_world, split_executable
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.randomness import Seed
from edgeward.data import load_source
from edgeward.load import load_model
from edgeward.recipes.mirrornet import MirrorNet, Strategy
from edgeward.train.part import Schedule
from edgeward.train.population import build

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")

NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
STRATEGY = {"name": "Tiny one", "blocks": [{"stage": 1, "kind": "pw", "width": 8}], "preset": "anti"}
EPOCHS, STEPS = 6, 8


def trained(module, x, y):
    optimiser = torch.optim.Adam(module.parameters(), 2e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    digits = load_digits()
    x, y = (digits.images[:500, None] / 16).astype(np.float32), digits.target[:500].astype(np.int64)
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "x.npy", x[:5])
    (folder / "net.py").write_text(NET)
    module = build(load_model(f"{folder}/net.py:net"), Seed(3))
    trained(module, torch.from_numpy(x), torch.from_numpy(y))
    save_file(module.state_dict(), folder / "net.safetensors")
    (folder / "strategy.json").write_text(json.dumps(STRATEGY))
    return folder


@pytest.fixture(scope="module")
def result(folder):
    """The same run as the command line's, from Python: it gives the integer reference and trains what both use."""
    return edgeward.mirror(
        build(load_model(f"{folder}/net.py:net", weights=folder / "net.safetensors", keep=True), Seed(0)),
        load_source(str(folder / "data.npz"), seed=Seed(0).child("data"), canaries=0),
        secure_ram=8 * 2**20,
        overhead=5.0,
        recipe=MirrorNet(preset="anti"),
        strategies=(Strategy.read(folder / "strategy.json"),),
        budgets=(20,),
        attackers=1,
        attacker=Attacker(steps=STEPS, epochs=STEPS),
        schedule=Schedule(epochs=EPOCHS, batch=64, rate=2e-3, decay="cosine"),
        largest_drop=1.0,
        workdir=folder / "run",
        command="edgeward mirror",
    )


def arguments(folder, *more):
    given = [f"{folder}/net.py:net", "--weights", folder / "net.safetensors", "--data", folder / "data.npz"]
    given += ["--strategy", folder / "strategy.json", "--preset", "anti", "--queries", 20, "--attackers", 1]
    given += ["--attack-steps", STEPS, "--epochs", EPOCHS, "--workdir", folder / "run", "--quiet"]
    return ["mirror", *given, *more]


@pytest.fixture(scope="module")
def mirrored(folder, result):
    done = run(*arguments(folder, "--drop", "100%", "--overhead", "500%", "--json"))
    assert done.code == 0, done.err
    return done


def answers(folder, *more):
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--json", *more)
    assert done.code == 0, done.err
    return done.json


def copied(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run" / "bundle"


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


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


def test_a_missing_extra_is_named(folder, mirrored, monkeypatch):
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--json")
    assert done.code == 1
    assert "pip install 'edgeward[tee-emul]'" in done.json["error"]["fix"]


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


def test_both_tiers_give_the_answer_of_the_reference(folder, result, mirrored):
    pytest.importorskip("pyseccomp", reason="the process tier needs Linux and the extra tee-emul")
    expected = split_executable(result.choose().deployment).labels(np.load(folder / "x.npy")).tolist()
    wasm, process = answers(folder, "--tier", "wasm"), answers(folder, "--tier", "process")
    assert wasm["labels"] == process["labels"] == expected
    assert wasm["tier"] == "emulated: wasm"
    assert "root" in process["notice"]


def test_one_record_is_a_batch_of_one(folder, mirrored, tmp_path):
    one = tmp_path / "one.npy"
    np.save(one, np.load(folder / "x.npy")[0])
    done = run("run", folder / "run" / "bundle", "--input", one)
    assert done.code == 0, done.err
    label, tier = done.out.splitlines()
    assert label == str(answers(folder)["labels"][0])
    assert tier.startswith("tier: emulated: wasm")


def test_without_the_secure_part_the_normal_world_answers_alone(folder, result, mirrored):
    alone = result.choose().deployment.direct
    expected = normal_world(alone).run(np.load(folder / "x.npy")).argmax(1).tolist()
    found = answers(folder, "--tier", "none", "--storage", folder / "absent")
    assert found["labels"] == expected
    assert found["tier"] == "none"
    assert "no secure part" in found["notice"]


@pytest.mark.parametrize("tier", ["wasm", "process"])
def test_a_tampered_blob_is_refused_with_the_reason(folder, mirrored, tmp_path, tier):
    bundle = copied(folder, tmp_path)
    flip(bundle / "secure-world" / "weights.sealed", -20)
    done = run("run", bundle, "--input", folder / "x.npy", "--tier", tier, "--json")
    assert done.code == 3
    assert "altered, or sealed with another key" in done.json["error"]["message"]
    assert run("verify", bundle).code == 0
    assert run("verify", bundle, "--storage", tmp_path / "run" / "device").code == 3


def test_once_a_newer_bundle_ran_an_older_one_is_refused(folder, result, mirrored, tmp_path):
    storage = DeviceStorage(tmp_path / "device")
    old, new = tmp_path / "old", tmp_path / "new"
    result.export(old, storage)
    given = ["--input", folder / "x.npy", "--storage", tmp_path / "device"]
    assert run("run", old, *given).code == 0
    result.export(new, storage)
    assert run("run", new, *given).code == 0
    refused = run("run", old, *given)
    assert refused.code == 3
    assert "counter" in refused.err


def test_another_device_is_refused(folder, mirrored, tmp_path):
    DeviceStorage(tmp_path / "other").key()
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--storage", tmp_path / "other", "--json")
    assert done.code == 3
    assert "sealed with another key" in done.json["error"]["message"]
    assert run("verify", folder / "run" / "bundle", "--storage", tmp_path / "other").code == 3


def test_what_cannot_be_used_is_1_with_one_clear_error(folder, mirrored, tmp_path):
    bundle, x = folder / "run" / "bundle", folder / "x.npy"
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 8, 8), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 1, 8, 8), np.nan, np.float32))
    (tmp_path / "text.npy").write_text("no array")
    cases = {
        "unknown tier": [bundle, "--input", x, "--tier", "optee"],
        "do not fit": [bundle, "--input", tmp_path / "wide.npy"],
        "not finite": [bundle, "--input", tmp_path / "nan.npy"],
        "cannot be read": [bundle, "--input", tmp_path / "absent.npy"],
        "'text.npy' cannot": [bundle, "--input", tmp_path / "text.npy"],
        "no split bundle": [tmp_path / "absent", "--input", x],
        "no device keeps": [bundle, "--input", x, "--storage", tmp_path / "absent"],
    }
    for message, given in cases.items():
        done = run("run", *given, "--json")
        assert done.code == 1, message
        assert message in done.json["error"]["message"]
        assert done.err.count("error:") == 1
    assert not (tmp_path / "absent").exists()


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


def test_verify_finds_any_changed_file(folder, mirrored, tmp_path):
    bundle = copied(folder, tmp_path)
    document = run("verify", bundle, "--storage", tmp_path / "run" / "device", "--json").json
    assert document["verified"]
    assert document["sealed_opened"]
    assert document["uncovered"] == ["CARD.md"]
    assert run("verify", bundle, "--expect", document["manifest_digest"]).code == 0
    assert run("verify", bundle, "--expect", "0" * 64).code == 3
    assert "judged by the secure world" in run("verify", bundle).out
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in [*manifest["files"], "manifest.json"]:
        for place in (0, (bundle / name).stat().st_size // 2, -2):
            flip(bundle / name, place)
            done = run("verify", bundle, "--json")
            assert done.code == 3, (name, place)
            found = done.json["error"]["message"]
            assert name in found or (name == "manifest.json" and "manifest" in found), (name, place, found)
            flip(bundle / name, place)
    for place in (0, 20, 40, 60):
        flip(bundle / "secure-world" / "weights.sealed", place)
        done = run("verify", bundle, "--storage", tmp_path / "run" / "device", "--json")
        assert done.code == 3, place
        assert "weights.sealed" in done.json["error"]["message"]
        flip(bundle / "secure-world" / "weights.sealed", place)
    (bundle / "normal-world" / "model.onnx").unlink()
    assert run("verify", bundle).code == 3


def test_thieves_who_know_every_label_already_ask_for_none(folder, tmp_path):
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
