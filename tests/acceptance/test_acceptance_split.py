"""MirrorNet among the recipes of `protect`: a split stands on the frontier, and its bundle has a folder per world."""

import json

import pytest

import edgeward
from cli.cli_runner import run
from digits_task import write_task
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.release import RunningSplit
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference
from edgeward.data import load_source
from edgeward.deploy.split import read_split, verify_split
from edgeward.recipes import MirrorNet
from edgeward.train.part import Schedule

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")

SPLIT = MirrorNet(preset="anti", queries="20", attackers=1, attack_steps=8, query_limit=50)
THREATS = (MembershipInference(shadows=4, canaries=12, kinds=("mislabelled",)),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write_task(folder)
    return folder


def protected(folder, **changes):
    from edgeward.load import load_model

    given = {
        "data": load_source(str(folder / "data.npz"), seed=Seed(0).child("data"), canaries=12),
        "device": "rpi3-optee",
        "threats": THREATS,
        "recipes": ["none", SPLIT],
        "schedule": Schedule(epochs=6, batch=32, rate=1e-2, decay="cosine"),
        "workdir": folder / "run",
        **changes,
    }
    return edgeward.protect(load_model(f"{folder}/net.py:net"), **given)


@pytest.fixture(scope="module")
def result(folder):
    return protected(folder)


def split_choice(result):
    return next(choice for choice in result.candidates() if choice.candidate.recipe == "mirrornet:anti")


def test_the_split_is_a_candidate_beside_the_others(result):
    by_name = {candidate["recipe"]: candidate for candidate in result.report["candidates"]}
    assert set(by_name) == {"none", "mirrornet:anti"}, result.report["failed"]
    split = by_name["mirrornet:anti"]
    cost, found = split["cost"], split["extra"]["split"]
    assert 0 < cost["secure_ram_bytes"] == found["modelled"]["secure_ram_bytes"]
    assert cost["overhead"] == found["modelled"]["overhead"]
    assert cost["provenance"]["overhead"]["kind"] == "modelled"
    assert cost["switches"] == found["traffic"]["switches"]
    assert cost["training_runs"] == 2
    assert cost["file_bytes"] > found["modelled"]["ram"]["weights"]
    assert [b["budget"] for b in found["stealing"]["budgets"]] == [20]
    assert {a["kind"] for a in split["attacks"]} == {"mislabelled", "population"}
    claims = {claim["asset"]: claim for claim in split["claims"]}
    assert claims["model weights"]["statement"] == found["stealing"]["verdict"]
    assert claims["training records"]["basis"] == "measured"
    assert not any("no stealing audit" in text for text in split["extra"]["untested"])


def test_what_was_measured_is_what_the_bundle_answers(folder, result, tmp_path):
    choice, device = split_choice(result), DeviceStorage(tmp_path / "device")
    bundle = choice.export(tmp_path / "bundle", device)
    assert (bundle / "normal-world" / "model.onnx").is_file()
    assert (bundle / "secure-world" / "weights.sealed").is_file()
    assert verify_split(bundle, None, device).uncovered == ()
    holdout = load_source(str(folder / "data.npz"), seed=Seed(0).child("data"), canaries=12).holdout
    split = read_split(bundle)
    with RunningSplit(split, WasmWorld(device.key()), None, None) as running:
        labels = running.executable.labels(holdout.x.numpy()[:50])
    right = (labels == holdout.y.numpy()[:50]).mean()
    assert abs(right - choice.measurement.test_accuracy.value) < 0.3
    assert split.manifest.border.query_limit == 50
    with pytest.raises(VerificationFailed):
        verify_split(bundle, None, DeviceStorage(tmp_path / "other"))


def test_each_export_has_a_newer_counter_and_a_card_that_names_it(folder, result, tmp_path):
    choice, device = split_choice(result), DeviceStorage(tmp_path / "device")
    for number in (1, 2):
        bundle = choice.export(tmp_path / "bundle", device)
        manifest = read_split(bundle).manifest
        assert manifest.counter == number
        assert f"counter {number} inside the authenticated data" in (bundle / "CARD.md").read_text()
        done = run("run", bundle, "--input", folder / "x.npy")
        assert done.code == 0, done.err
    assert device.counter(manifest.identity).floor() == 2


def test_the_runs_own_device_takes_one_release_after_the_other(folder, result):
    choice = split_choice(result)
    for _ in range(3):
        bundle = choice.export(folder / "run" / "released")
        done = run("run", bundle, "--input", folder / "x.npy", "--storage", folder / "run" / "device")
        assert done.code == 0, done.err
    assert read_split(bundle).manifest.counter == 3


def test_a_bundle_of_either_kind_takes_the_place_of_the_other_and_of_nothing_else(result, tmp_path):
    plain = next(choice for choice in result.candidates() if choice.candidate.recipe == "none")
    target = tmp_path / "bundle"
    split_choice(result).export(target, DeviceStorage(tmp_path / "device"))
    plain.export(target)
    assert not (target / "secure-world").exists()
    with pytest.raises(ConfigError, match="not overwritten"):
        split_choice(result).export(target, DeviceStorage(tmp_path / "device"))
    split_choice(result).export(tmp_path / "other", DeviceStorage(tmp_path / "device"))
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine\.txt"):
        plain.export(tmp_path / "other")
    assert (tmp_path / "other" / "mine.txt").exists()


def test_a_rerun_recalls_the_split_and_an_altered_store_is_refused(folder, result):
    again = protected(folder)
    assert again.report["candidates"] == result.report["candidates"]
    sealed = split_choice(result).folder / "bundle" / "secure-world" / "weights.sealed"
    good = sealed.read_bytes()
    sealed.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(VerificationFailed, match="sealed blob is altered"):
            split_choice(result).export(folder / "never")
        assert not (folder / "never").exists()
    finally:
        sealed.write_bytes(good)


def test_a_device_without_a_secure_world_is_told_before_anything_trains(folder, tmp_path):
    report = protected(folder, device="cortex-m7", recipes=[SPLIT], workdir=tmp_path / "run").report
    assert "secure_world" in report["failed"][0]["reason"]
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_job_file_names_it_too(folder, tmp_path):
    (tmp_path / "job.toml").write_text(
        f"""schema = 1
recipes = [{{ name = "mirrornet", preset = "public" }}]
[model]
source = "{folder}/net.py:net"
[data]
source = "{folder}/data.npz"
[device]
name = "rpi3-optee"
[train]
epochs = 3
rate = 0.01
batch = 32
[[threats]]
threat = "membership"
shadows = 4
canaries = 12
"""
    )
    done = run("protect", tmp_path / "job.toml", "--quiet", "--json")
    assert done.code == 0, done.err
    (split,) = done.json["candidates"]
    assert split["recipe"] == "mirrornet:public"
    assert split["extra"]["split"]["stealing"] is None
    assert any("no stealing audit" in text for text in split["extra"]["untested"])
    answered = run("run", tmp_path / "runs" / "job" / "bundle", "--input", folder / "x.npy", "--json")
    assert answered.code == 0, answered.err
    assert len(answered.json["labels"]) == 5
    assert json.loads((tmp_path / "runs" / "job" / "report.json").read_text())["chosen"]
