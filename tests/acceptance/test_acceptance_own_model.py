"""A model and records of the user's own, in every form they may arrive in."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import edgeward
from acceptance.acceptance_jobs import NET, blobs, leftovers, outcome, write_job
from cli.cli_runner import run
from edgeward.core.errors import DataError, ModelError, UnsupportedOperators
from edgeward.train.part import Schedule

QUICK = {
    "recipes": ["none"],
    "schedule": Schedule(epochs=2, batch=64),
    "threats": [edgeward.MembershipInference(shadows=4, canaries=12, kinds=("mislabelled",))],
}
ODD = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 3)
        self.sort, self.whirl = Sort(), Whirl()

    def forward(self, x):
        return self.last(self.whirl(self.sort(self.first(x))))

class Sort(nn.Module):
    def forward(self, x):
        return torch.sort(x, dim=-1).values

class Whirl(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real

def make():
    return Odd()
"""
IMAGES = """
from torch import nn

def make(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 16, 3)
    )
"""


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def datasets(shared: int = 0) -> tuple[TensorDataset, TensorDataset]:
    x, y = (torch.from_numpy(part) for part in blobs())
    return TensorDataset(x[:150], y[:150]), TensorDataset(x[150 - shared :], y[150 - shared :])


def test_all_unsupported_operators_come_in_one_error_before_any_training(tmp_path):
    job = write_job(tmp_path)
    (tmp_path / "net.py").write_text(ODD)
    done = run("protect", job, "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "UnsupportedOperators"
    for text in ("sort", "whirl", "fft"):
        assert text in done.json["error"]["message"]
    assert "epoch" not in done.err
    assert "none: " not in done.err
    assert leftovers(tmp_path) == []
    assert run("cost", f"{tmp_path}/net.py:make", "--input", "12").code == 1


def test_own_records_in_a_table(tmp_path):
    x, y = blobs()
    with (tmp_path / "records.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"f{i}" for i in range(11)), "colour", "kind"])
        for row, label in zip(x, y, strict=True):
            writer.writerow([*row[:11], "red" if row[11] > 0 else "blue", "abc"[label]])
    job = write_job(tmp_path, data={"source": "records.csv", "label": "kind"})
    # Eleven numbers and one column for each of the two colours.
    (tmp_path / "net.py").write_text(NET.replace("12, 8", "13, 8"))
    done = run("protect", job)
    assert done.code == 0, done.err
    assert outcome(tmp_path / "runs" / "job")["chosen"]


def test_own_records_in_a_folder_of_pictures(tmp_path):
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(60 * label, 60 * label + 100, (9, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    model = {"source": "net.py:make", "width": 6}
    job = write_job(tmp_path, data={"source": "pictures", "size": [8, 8]}, model=model)
    (tmp_path / "net.py").write_text(IMAGES)
    done = run("protect", job)
    assert done.code == 0, done.err
    assert outcome(tmp_path / "runs" / "job")["chosen"]


def test_an_exported_program(tmp_path):
    exported = torch.export.export(net(), (torch.zeros(2, 12),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, tmp_path / "net.pt2")
    done = run("protect", write_job(tmp_path, model={"source": "net.pt2"}))
    assert done.code == 0, done.err
    (tmp_path / "net.pt2").write_bytes((tmp_path / "net.pt2").read_bytes()[:-100])
    done = run("protect", tmp_path / "job.toml", "--json", "--workdir", tmp_path / "other")
    assert (done.code, done.json["error"]["type"]) == (1, "ModelError")


class Pictures(Dataset):
    """A map-style data set that makes its items on demand, with labels as plain ints."""

    def __init__(self, start: int, stop: int) -> None:
        self.x, self.y = blobs()
        self.rows = range(start, stop)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.x[self.rows[index]], int(self.y[self.rows[index]])


def test_torch_datasets_with_a_factory(tmp_path):
    protected = edgeward.protect(net, train=Pictures(0, 150), holdout=Pictures(150, 240), workdir=tmp_path, **QUICK)
    bundle = protected.choose().export(tmp_path / "elsewhere")
    assert run("verify", bundle).code == 0
    assert protected.report["data"]["counts"]["train"] + protected.report["data"]["counts"]["validation"] == 150


def test_a_module_is_protected_and_keeps_its_weights(tmp_path):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train, holdout = datasets()
    assert edgeward.protect(model, train=train, holdout=holdout, workdir=tmp_path, **QUICK).report["chosen"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_overlap_between_train_and_holdout_is_an_error_with_the_count(tmp_path):
    train, holdout = datasets(shared=7)
    with pytest.raises(DataError, match="7 of the 97 holdout records are also in train"):
        edgeward.protect(net, train=train, holdout=holdout, workdir=tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_protected_says_so(tmp_path):
    train, holdout = datasets()

    class Stuck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.zeros(12, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.own

    cases = [
        (Stuck(), ModelError, "own"),
        (lambda: nn.Linear(12, 2), ModelError, "labels out of range"),
        (lambda: nn.Linear(11, 3), ModelError, "does not run"),
        (lambda: nn.Sequential(nn.Linear(12, 3), nn.Unflatten(1, (3, 1))), ModelError, "one answer per record"),
        (lambda: nn.Sequential(nn.Linear(12, 3), nn.Hardshrink()), UnsupportedOperators, "1"),
    ]
    for model, kind, text in cases:
        with pytest.raises(kind, match=text):
            edgeward.protect(model, train=train, holdout=holdout, workdir=tmp_path, **QUICK)
    with pytest.raises(DataError, match="together"):
        edgeward.protect(net, train=train, workdir=tmp_path, **QUICK)
    empty = TensorDataset(torch.zeros(0, 12), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="holdout is empty"):
        edgeward.protect(net, train=train, holdout=empty, workdir=tmp_path, **QUICK)
    assert list(Path(tmp_path).iterdir()) == []


def test_more_outputs_than_labels_seen_is_no_error(tmp_path):
    train, holdout = datasets()
    protected = edgeward.protect(lambda: nn.Linear(12, 5), train=train, holdout=holdout, workdir=tmp_path, **QUICK)
    assert protected.report["data"]["classes"] == 5
