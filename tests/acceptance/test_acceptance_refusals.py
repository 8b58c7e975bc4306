"""What cannot be used: one clear error with exit code 1, one JSON document, nothing half-written."""

import gzip

import numpy as np
import pytest
import torch

from acceptance.acceptance_jobs import blobs, leftovers, outcome, write_job, write_weights
from cli.cli_runner import run
from edgeward.load.weights import read_state

WEIGHTED = {"source": "net.py:make", "weights_are_independent": True}


def truncated_safetensors(folder):
    path = write_weights(folder / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    write_job(folder, model={**WEIGHTED, "weights": "w.safetensors"})


def truncated_checkpoint(folder):
    torch.save(read_state(write_weights(folder / "w.safetensors")), folder / "w.pt")
    (folder / "w.pt").write_bytes((folder / "w.pt").read_bytes()[:700])
    write_job(folder, model={**WEIGHTED, "weights": "w.pt"})


def empty_checkpoint(folder):
    (folder / "w.pt").write_bytes(b"")
    write_job(folder, model={**WEIGHTED, "weights": "w.pt"})


def nan_weights(folder):
    write_weights(folder / "w.safetensors", **{"4_weight": np.full((3, 8), np.nan, np.float32)})
    write_job(folder, model={**WEIGHTED, "weights": "w.safetensors"})


def labels_below_zero(folder):
    x, y = blobs()
    np.savez(folder / "records.npz", x=x, y=np.where(y == 2, -1, y))
    write_job(folder)


def more_classes_than_outputs(folder):
    x, y = blobs()
    np.savez(folder / "records.npz", x=x, y=np.where(y == 2, 7, y))
    write_job(folder)


def empty_holdout(folder):
    x, y = blobs()
    np.savez(folder / "records.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    write_job(folder)


def no_records(folder):
    np.savez(folder / "records.npz", x=np.zeros((0, 12), np.float32), y=np.zeros(0, np.int64))
    write_job(folder)


def records_with_nan(folder):
    x, y = blobs()
    x[5, 3] = np.nan
    np.savez(folder / "records.npz", x=x, y=y)
    write_job(folder)


def records_of_another_width(folder):
    x, y = blobs(shape=(13,))
    np.savez(folder / "records.npz", x=x, y=y)
    write_job(folder)


def truncated_archive(folder):
    x, y = blobs()
    np.savez(folder / "records.npz", x=x, y=y)
    (folder / "records.npz").write_bytes((folder / "records.npz").read_bytes()[:-200])
    write_job(folder)


def wrong_checksum(folder):
    target = folder / "data" / "fashion-mnist"
    target.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (target / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"not the published bytes"))
    write_job(folder, data={"source": "fashion_mnist", "root": "data"})


def missing_data_set(folder):
    (folder / "data").mkdir()
    write_job(folder, data={"source": "fashion_mnist", "root": "data"})


def unknown_device(folder):
    write_job(folder, device={"name": "cortex-m8"})


def unknown_recipe(folder):
    write_job(folder, recipes=["none", "gecko:crosfit"])


def unknown_keys(folder):
    write_job(folder, workers=3, device={"nam": "cortex-m7"}, train={"epoch": 2}, budget={"file_byte": "1KiB"})


def too_many_canaries(folder):
    write_job(folder, threat={"threat": "membership", "shadows": 4, "canaries": 900})


CASES = {
    truncated_safetensors: ["w.safetensors", "not a whole safetensors file"],
    truncated_checkpoint: ["w.pt"],
    empty_checkpoint: ["w.pt"],
    nan_weights: ["NaN or infinity in 4.weight"],
    labels_below_zero: ["labels -1"],
    more_classes_than_outputs: ["labels out of range", "8 classes"],
    empty_holdout: ["holdout"],
    no_records: ["records"],
    records_with_nan: ["NaN"],
    records_of_another_width: ["13"],
    truncated_archive: ["records.npz"],
    wrong_checksum: ["SHA-256"],
    missing_data_set: ["EDGEWARD_DATA"],
    unknown_device: ["cortex-m8", "cortex-m7"],
    unknown_recipe: ["crossfit"],
    unknown_keys: ["workers", "[device] nam", "[train] epoch", "[budget] file_byte", "did you mean"],
    too_many_canaries: ["900"],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_cannot_be_used_is_one_clear_error(case, tmp_path):
    case(tmp_path)
    done = run("protect", tmp_path / "job.toml", "--json")
    assert done.code == 1, done.err
    error = done.json["error"]
    assert error["exit_code"] == 1
    assert error["expected"]
    assert error["came"]
    assert error["fix"]
    for text in CASES[case]:
        assert text in error["message"], error["message"]
    assert "Traceback" not in done.err
    assert leftovers(tmp_path) == []


def test_weights_that_fit_are_taken(tmp_path):
    write_weights(tmp_path / "w.safetensors")
    job = write_job(tmp_path, model={**WEIGHTED, "weights": "w.safetensors"})
    assert run("protect", job, "--json").code == 0


def test_without_json_the_error_is_on_stderr_alone(tmp_path):
    unknown_device(tmp_path)
    done = run("protect", tmp_path / "job.toml")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert all(word in done.err for word in ("expected:", "came:", "fix:"))


FAILING = {"name": "early_stop", "schedule": {"epochs": 2, "rate": 1e30, "optimizer": "sgd"}}


def test_a_recipe_that_fails_does_not_take_the_others_with_it(tmp_path):
    done = run("protect", write_job(tmp_path, recipes=["none", FAILING]), "--json")
    assert done.code == 0, done.err
    found = outcome(tmp_path / "runs" / "job")
    assert [candidate["recipe"] for candidate in found["candidates"]] == ["none"]
    assert [entry["recipe"] for entry in found["failed"]] == ["early_stop"]


def test_when_every_recipe_fails_the_reasons_are_the_error(tmp_path):
    done = run("protect", write_job(tmp_path, recipes=[FAILING]), "--json")
    assert done.code == 1
    assert "early_stop: the loss is not finite" in done.json["error"]["message"]
    assert outcome(tmp_path / "runs" / "job")["candidates"] == []
    assert not (tmp_path / "runs" / "job" / "bundle").exists()
