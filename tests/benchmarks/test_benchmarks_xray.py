"""The chest X-ray benchmark: variations of records, what a rewritten network learns from, and how networks compare."""

import json

import numpy as np
import pytest
import torch
from benchmarks.xray_candidates import CANDIDATES, MIXED, REFERENCE, SCHEDULES, SIZE, VARIED
from benchmarks.xray_records import moved, varied
from torch import nn

from benchmarks import mpc_xray
from benchmarks import xray_judging as judging
from benchmarks import xray_lessons as lessons
from benchmarks import xray_training as training
from edgeward.attacks.metrics import auc
from edgeward.core import Seed
from edgeward.graph import capture
from edgeward.train.part import Schedule


def images(n, size=SIZE, seed=0):
    return torch.rand(n, 1, size, size, generator=Seed(seed).torch())


def small():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_moved_images_repeat_their_edges():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert moved(x, torch.tensor([1]), torch.tensor([-1]))[0, 0].tolist() == [[3, 3, 4], [6, 6, 7], [6, 6, 7]]
    torch.testing.assert_close(moved(x, torch.tensor([0]), torch.tensor([0])), x)


def test_variations_keep_what_a_flat_image_is():
    found = varied(torch.full((200, 1, 8, 8), 0.5))
    assert found.std((1, 2, 3)).max() < 1e-6
    assert found.min() >= 0.3 - 1e-6
    assert found.max() <= 0.7 + 1e-6
    assert found.std() > 0.01


def test_pool_holds_every_record_as_often_as_promised():
    x = torch.stack([torch.full((1, 8, 8), value) for value in (0.0, 1.0)])
    found, labels = lessons.pool(x, torch.tensor([0, 1]), Seed(0))
    assert len(found) == len(labels) == 2 * (VARIED + MIXED)
    assert labels.tolist() == [0, 1] * (VARIED + MIXED)
    # the larger share is the label's own: with brightness and contrast at most 0.3 away from 0 or 1, plain copies
    # stay on their own side
    means = found.mean((1, 2, 3))[: 2 * VARIED]
    assert ((means > 0.5).long() == labels[: 2 * VARIED]).all()
    again, _ = lessons.pool(x, torch.tensor([0, 1]), Seed(0))
    assert torch.equal(found, again)


def test_wins_average_to_the_auroc():
    value = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.3], dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1, 1])
    assert judging.wins(value, y).mean() == pytest.approx(auc(value, y.bool()).value)


def test_interval_of_a_paired_difference():
    draw = Seed(1).torch()
    y = (torch.rand(300, generator=draw) < 0.6).long()
    value = y + torch.randn(300, generator=draw, dtype=torch.float64)
    table = np.stack([judging.wins(value, y)] * 2)
    alone = judging.estimate(table, Seed(0))
    assert 0.02 < alone.high - alone.low < 0.2
    assert alone.low < alone.value < alone.high
    same = judging.estimate(table - table, Seed(0))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    reversed_ = judging.compared({REFERENCE: table, "worse": 1 - table}, Seed(0))
    assert set(reversed_) == {"worse"}
    assert reversed_["worse"]["interval"][1] < 0


def test_disagreement_of_seeds_widens_the_interval():
    y = torch.tensor([0, 1] * 100)
    good, bad = judging.wins(y.double(), y), judging.wins(-y.double(), y)
    found = judging.estimate(np.stack([good, bad]), Seed(0))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0, 1))


def test_rule_is_written_and_speaks_of_validation():
    assert judging.rule().startswith("The rule")
    assert "validation" in judging.rule()
    assert judging.REFERENCE in SCHEDULES
    assert set(SCHEDULES) <= set(CANDIDATES)


def test_shifts_leave_the_shape_and_repeat():
    x = images(3, 16)
    for shift in judging.SHIFTS.values():
        assert shift(x).shape == x.shape
        assert torch.equal(shift(x), shift(x))


def test_a_rewritten_network_learns_the_answers_of_its_reference(tmp_path, monkeypatch):
    x = images(64, 1) + 0.1 * images(64, 8)
    y = (x.mean((1, 2, 3)) > 0.55).long()
    asked = []
    monkeypatch.setattr(training, "records", lambda part: asked.append(part) or (x, y))
    monkeypatch.setattr(training, "CANDIDATES", {REFERENCE: small, "rewritten": small})
    quick = Schedule(epochs=20, batch=16, rate=1e-2)
    monkeypatch.setattr(training, "SCHEDULES", {REFERENCE: quick, "rewritten": quick})
    figures = training.train("rewritten", 0, tmp_path)
    assert figures["records"] == 64 * (VARIED + MIXED)
    assert json.loads((tmp_path / "rewritten-0.json").read_text()) == figures
    assert set(asked) == {"train"}
    teacher, student = (training.trained(name, 0, tmp_path) for name in (REFERENCE, "rewritten"))
    found, right = (judging.scores(module, x).numpy() for module in (student, teacher))
    assert np.corrcoef(found, right)[0, 1] > 0.9
    asked.clear()
    assert training.train("rewritten", 0, tmp_path) == figures
    assert not asked


class Judge(nn.Module):
    """Score images by their mean, right or wrong way round."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        mean = x.mean((1, 2, 3)) * self.sign
        return torch.stack([-mean, mean], 1)


def judgement(monkeypatch, signs, more=None):
    """Return what `judged` says of networks that are right (1) or wrong (-1) on validation and on test records."""
    y = torch.tensor([0, 1] * 20)
    x = y.view(-1, 1, 1, 1) * 0.5 + images(40, 16) * 0.1
    shown = {"validation": (x, y), "test": (-x, y)}
    settings = {"name": "", "records": 40, "parameters": 0, "settings": {"epochs": 1}}
    monkeypatch.setattr(mpc_xray, "SCHEDULES", dict.fromkeys(signs))
    judges = {name: sign if isinstance(sign, nn.Module) else Judge(sign) for name, sign in signs.items()}
    monkeypatch.setattr(mpc_xray, "train", lambda name, seed: settings)
    monkeypatch.setattr(mpc_xray, "trained", lambda name, seed: judges[name])
    monkeypatch.setattr(mpc_xray, "records", lambda part: shown[part])
    cost = {REFERENCE: 64, "cheap": 8, "cheaper": 4, **(more or {})}
    graphs = {
        name: capture(nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.ReLU(), nn.Linear(width, 2)), (1, 16, 16))
        for name, width in cost.items()
    }
    return mpc_xray.judged(graphs)


def test_choice_is_the_cheapest_that_validation_admits(monkeypatch):
    found = judgement(monkeypatch, {REFERENCE: 1, "cheap": 1, "cheaper": -1})
    assert found["chosen_on_validation"] == "cheap"
    # on test records the discarded network is right and all others are wrong; that has no say
    assert found["accuracy"]["cheaper"]["auroc_test"]["value"] == 1
    assert found["accuracy"]["cheap"]["auroc_test"]["value"] == 0
    assert found["holds"] is True
    assert set(found["differences_on_test"]) == {"cheap", "cheaper"}
    json.dumps(found)


def test_claim_fails_where_nothing_cheaper_qualifies(monkeypatch):
    found = judgement(monkeypatch, {REFERENCE: 1, "cheap": -1})
    assert found["chosen_on_validation"] == REFERENCE
    assert found["holds"] is False


def test_the_reference_in_tiles_is_as_good_as_the_reference(monkeypatch):
    tiled = mpc_xray.TILED[4]
    found = judgement(monkeypatch, {REFERENCE: 1, "cheap": -1}, {tiled: 16})
    assert found["chosen_on_validation"] == tiled
    assert found["auroc_difference_on_test"] == 0
    assert found["holds"] is True


class Faint(Judge):
    """Right on images of full contrast only."""

    def forward(self, x):
        return super().forward(x) * (1 if x.amax() - x.amin() > 0.4 else -1)


def test_one_shift_is_enough_to_lose(monkeypatch):
    found = judgement(monkeypatch, {REFERENCE: 1, "cheap": 1, "cheaper": Faint(1)})
    assert found["accuracy"]["cheaper"]["auroc_validation"]["value"] == 1
    assert found["accuracy"]["cheaper"]["largest_loss_on_validation"] == 1
    assert found["chosen_on_validation"] == "cheap"
