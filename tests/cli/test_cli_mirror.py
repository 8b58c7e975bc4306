"""`mirror`, `run` and `verify` on a split: one answer in every tier, and refusals with reason and exit code."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import edgeward
from cli.cli_runner import run
from edgeward.attacks.extraction import Attacker
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.optee import KIT
from edgeward.backends.tee.release import SplitRelease, release, resealed
from edgeward.backends.tee.sealing import open_sealed, seal
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
NONCE = "00112233445566778899aabbccddeeff"


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


def test_the_counter_belongs_to_the_deployment_and_not_to_its_strategys_name(folder, result, tmp_path):
    """A release under another name must not start anew, and another deployment of the same name must not be held up."""
    storage, given = DeviceStorage(tmp_path / "device"), ["--input", folder / "x.npy"]
    old = result.export(tmp_path / "old", storage)
    assert run("run", tmp_path / "old", *given).code == 0
    renamed = replace(old.manifest, name="another name", counter=0)
    key = storage.key()
    moved = resealed(replace(old, manifest=renamed, sealed=_under(old, renamed, key)), key, key, 0, None)
    moved.write(tmp_path / "renamed")
    refused = run("run", tmp_path / "renamed", *given)
    assert refused.code == 3
    assert "counter" in refused.err
    other = result.export(tmp_path / "other", storage, identity="another-deployment")
    assert (other.manifest.name, other.manifest.counter) == (old.manifest.name, 1)
    assert result.export(tmp_path / "old", storage).manifest.counter == 2
    assert run("run", tmp_path / "other", *given).code == 0


def _under(split, manifest, key):
    """The weights of `split`, sealed for another manifest."""
    opened = open_sealed(split.sealed, key, split.manifest.digest(), 0)
    return seal(opened.content, key, manifest.digest(), manifest.counter)


def test_the_card_names_the_counter_that_was_sealed(folder, result, tmp_path):
    written = result.export(tmp_path / "bundle", DeviceStorage(tmp_path / "device"), counter=41)
    card = (tmp_path / "bundle" / "CARD.md").read_text()
    assert written.manifest.counter == 41
    assert "counter 41 inside the authenticated data" in card
    assert "any number of times" in card


@pytest.fixture(scope="module")
def token(folder, mirrored):
    pytest.importorskip("cwt", reason="the extra tee-attest is not installed")
    path = folder / "token.cwt"
    done = run("run", folder / "run" / "bundle", "--evidence", path, "--nonce", NONCE, "--json")
    assert done.code == 0, done.err
    assert done.json["labels"] == []
    assert done.json["evidence"] == str(path)
    return path


def checked(bundle, token, *more, nonce=NONCE):
    return run("verify", bundle, "--evidence", token, "--nonce", nonce, "--json", *more)


def test_emulated_evidence_is_refused_unless_accepted(folder, token):
    bundle = folder / "run" / "bundle"
    refused = checked(bundle, token)
    assert refused.code == 3
    assert "from an emulated secure world" in refused.json["error"]["message"]
    good = checked(bundle, token, "--accept-emulated")
    assert good.code == 0, good.err
    stated = good.json["evidence"]
    assert stated["tier"] == "wasm"
    assert "emulated" in stated["profile"]
    assert stated["manifest"] == good.json["manifest_digest"]


def test_evidence_that_is_old_altered_or_of_another_is_refused(folder, token, result, tmp_path):
    bundle, accept = folder / "run" / "bundle", "--accept-emulated"
    tampered = tmp_path / "tampered.cwt"
    tampered.write_bytes(token.read_bytes())
    flip(tampered, -1)
    DeviceStorage(tmp_path / "other").attestation_key()
    # sealed once more: the same network under a newer counter
    result.export(tmp_path / "newer" / "bundle", DeviceStorage(folder / "run" / "device"), counter=9)
    device = ["--attester", folder / "run" / "device" / "attestation.pem"]
    cases = {
        "not an answer to this nonce": checked(bundle, token, accept, nonce="ff" * 16),
        "not signed by the given key": checked(bundle, tampered, accept),
        "by the given key": checked(bundle, token, accept, "--attester", tmp_path / "other" / "attestation.pem"),
        "others for: application, tier": checked(bundle, token, accept, "--tier", "process"),
        "others for: sealed, manifest": checked(tmp_path / "newer" / "bundle", token, accept, *device),
    }
    for message, done in cases.items():
        assert done.code == 3, message
        assert message in done.json["error"]["message"]
    missing = checked(bundle, tmp_path / "absent.cwt", accept)
    assert missing.code == 1
    assert "absent.cwt" in missing.json["error"]["message"]
    assert run("verify", bundle, "--evidence", token).code == 1


@pytest.fixture
def limited(folder, result, tmp_path):
    """A bundle that answers seven times, with its device."""
    storage = DeviceStorage(tmp_path / "device")
    chosen = replace(result.choose().deployment, query_limit=7)
    release(chosen, storage.key(), 1, identity="limited").write(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("tiers", [("wasm", "wasm"), ("process", "wasm"), ("wasm", "process")])
def test_a_query_limit_holds_over_sessions_and_tiers(folder, limited, tiers):
    first, second = (run("run", limited, "--input", folder / "x.npy", "--tier", tier, "--json") for tier in tiers)
    assert (first.code, len(first.json["labels"])) == (0, 5)
    assert second.code == 3
    assert "TEE_ERROR_ACCESS_DENIED" in second.json["error"]["message"]
    assert "labels" not in second.json
    device = DeviceStorage(limited.parent / "device")
    assert device.asked("limited").floor() == 7
    assert run("verify", limited, "--storage", limited.parent / "device", "--json").json["query_limit"] == 7


def test_a_limit_written_into_the_manifest_alone_does_not_pass(limited, tmp_path):
    """The secure world goes by the sealed number; `verify` with the key finds that the manifest says another."""
    split, key = SplitRelease.read(limited), DeviceStorage(tmp_path / "device").key()
    lax = replace(split.manifest, border=replace(split.manifest.border, query_limit=None))
    opened = open_sealed(split.sealed, key, split.manifest.digest(), 0)
    sealed = seal(opened.content, key, lax.digest(), 1, 7)
    replace(split, manifest=lax, sealed=sealed).write(limited)
    done = run("verify", limited, "--storage", tmp_path / "device", "--json")
    assert done.code == 3
    assert "query limit 7" in done.json["error"]["message"]


def test_optee_without_a_kit_names_the_variable_and_the_guide(folder, mirrored, monkeypatch):
    monkeypatch.delenv(KIT, raising=False)
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--tier", "optee", "--json")
    assert done.code == 1
    assert KIT in done.json["error"]["message"]
    assert "docs/how-to/build-for-op-tee.md" in done.json["error"]["fix"]


@pytest.mark.skipif(not os.environ.get(KIT), reason=f"{KIT} names no kit")
def test_optee_with_a_kit_builds_the_same_sources(folder, mirrored):
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--tier", "optee", "--json")
    assert done.code == 1
    assert ".ta was built" in done.json["error"]["came"]


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
        "unknown tier": [bundle, "--input", x, "--tier", "sgx"],
        "nothing to do": [bundle],
        "a nonce is for evidence": [bundle, "--input", x, "--nonce", NONCE],
        "needs the verifier's nonce": [bundle, "--evidence", tmp_path / "token.cwt"],
        "issues no evidence here": [bundle, "--tier", "none", "--evidence", tmp_path / "token.cwt"],
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


def test_verify_finds_any_changed_file(folder, mirrored, tmp_path):
    bundle = copied(folder, tmp_path)
    document = run("verify", bundle, "--storage", tmp_path / "run" / "device", "--json").json
    assert document["verified"]
    assert document["sealed_opened"]
    assert document["uncovered"] == []
    assert run("verify", bundle, "--expect", document["manifest_digest"]).code == 0
    assert run("verify", bundle, "--expect", "0" * 64).code == 3
    assert "judged by the secure world" in run("verify", bundle).out
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert "CARD.md" in manifest["files"]
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
