"""`run` on a split: one answer in every tier, and refusals with reason and exit code."""

import os
import sys

import numpy as np
import pytest

from cli.cli_runner import run
from cli.mirror.mirror_runs import NONCE, copied, flip
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.optee import KIT
from edgeward.backends.tee.split_executable import normal_world, split_executable

pytest_plugins = ["cli.mirror.mirror_fixtures"]

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")


def answers(folder, *more):
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--json", *more)
    assert done.code == 0, done.err
    return done.json


def test_a_missing_extra_is_named(folder, mirrored, monkeypatch):
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    done = run("run", folder / "run" / "bundle", "--input", folder / "x.npy", "--json")
    assert done.code == 1
    assert "pip install 'edgeward[tee-emul]'" in done.json["error"]["fix"]


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
