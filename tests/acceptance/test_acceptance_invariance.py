"""What must not move an audit: numbers of classes, shifted logits, order of records, classes that nobody has."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import edgeward
from acceptance.acceptance_jobs import blobs
from edgeward.core.threat import MembershipInference
from edgeward.train.part import Schedule

CLASSES = 4


class Net(nn.Module):
    """A head that starts at zero knows no class from another: renumbering them changes nothing at all."""

    def __init__(self, classes=CLASSES, shift=0.0):
        super().__init__()
        self.body, self.head, self.shift = nn.Linear(12, 32), nn.Linear(32, classes), shift
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(torch.relu(self.body(x))) + self.shift


def audited(folder, build, rename=lambda y: y, order=None, seed=0):
    x, y = blobs(240, classes=CLASSES, seed=3)
    order = np.arange(150) if order is None else order
    members = TensorDataset(torch.from_numpy(x[:150][order]), torch.from_numpy(rename(y)[:150][order]))
    others = TensorDataset(torch.from_numpy(x[150:]), torch.from_numpy(rename(y)[150:]))
    return edgeward.protect(
        build,
        train=members,
        holdout=others,
        recipes=["none"],
        schedule=Schedule(epochs=25, batch=30, rate=0.01),
        threats=[MembershipInference(shadows=8, canaries=40)],
        workdir=folder,
        seed=seed,
    ).report["candidates"][0]


def rates(candidate):
    return {kind["kind"]: kind["corrected"]["value"] for kind in candidate["kinds"]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return audited(tmp_path_factory.mktemp("plain"), Net)


def test_the_toy_leaks(plain):
    assert plain["strongest_attack"]["tpr_at_1pct"]["value"] > 0.2
    assert len(plain["kinds"]) == 6


def test_renumbered_classes_change_nothing(plain, tmp_path):
    number = np.array([2, 0, 3, 1])
    again = audited(tmp_path, Net, rename=lambda y: number[y])
    assert rates(again) == pytest.approx(rates(plain), abs=0.02)
    assert again["test_accuracy"] == pytest.approx(plain["test_accuracy"], abs=0.02)


def test_shifted_logits_change_nothing(plain, tmp_path):
    again = audited(tmp_path, lambda: Net(shift=8.0))
    assert rates(again) == pytest.approx(rates(plain), abs=0.02)


def overlapping(first, second):
    """Compare the worst kinds: their intervals must share a value."""
    (low, high), (other_low, other_high) = (c["worst"]["corrected"]["interval"] for c in (first, second))
    return max(low, other_low) <= min(high, other_high)


def test_reordered_records_are_within_the_noise(plain, tmp_path):
    order = np.random.default_rng(5).permutation(150)
    assert overlapping(plain, audited(tmp_path, Net, order=order))


def test_classes_that_nobody_has_are_within_the_noise(plain, tmp_path):
    again = audited(tmp_path, lambda: Net(5 * CLASSES), rename=lambda y: 5 * y)
    assert overlapping(plain, again)
