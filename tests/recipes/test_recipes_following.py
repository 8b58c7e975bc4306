"""Strategies at the grain of blocks, copies that follow the victim on moving images, and what tap ranges give away."""

from functools import lru_cache

import pytest
import torch

from edgeward.attacks.extraction.training import Jitter
from edgeward.core.errors import ConfigError
from edgeward.core.measurement import AttackResult
from edgeward.graph import to_module
from edgeward.graph.partition import blocks, stages, subnetwork
from edgeward.recipes.mirrornet import Strategy, deployment, exposure, mirror
from edgeward.recipes.mirrornet.following import Following, watched_blocks
from edgeward.recipes.mirrornet.mirroring import answers
from edgeward.recipes.mirrornet.proposals import copies_from
from edgeward.recipes.mirrornet.ranges import range_leak
from edgeward.train.part import Batch
from edgeward.transforms.mirror import Block, Monitor
from edgeward.transforms.mirror.features import TapRange
from recipes.mirror_task import digits, net, public, task, victim


@lru_cache
def following():
    copies = copies_from(2, blocks(victim()), foreign=True)
    strategy = Strategy("from-block-2", copies, flips=False, tuning=0.3, division="blocks", shift=1, follow=1.0)
    return mirror(victim(), strategy, task(4), public=public())


def test_copies_that_follow_the_victim_reach_its_accuracy_and_show_public_numbers_only():
    found, x, y = following(), digits("holdout").x, digits("holdout").y
    whole = float((answers(victim(), x).argmax(1) == y).float().mean())
    assert found.accuracy(x, y) >= whole - 0.03
    for key, tensor in found.normal.tensors.items():
        assert torch.equal(tensor, public().tensors[key])
    assert [claim.basis for claim in found.claims] == ["proved"]
    assert exposure(found, public().tensors).taps == (blocks(public())[1].value,)


def test_the_loss_is_distillation_plus_the_distance_from_the_victims_values():
    x = digits("train").x[:6]
    front = to_module(subnetwork(victim(), victim().inputs, (blocks(victim())[1].value,)))
    ends = (blocks(victim())[2].value, victim().outputs[-1])
    teacher = to_module(subnetwork(victim(), victim().inputs, ends))
    size = victim().values[ends[0]].elements
    part = Following(front, teacher, (TapRange(0.0, 6.0),), (size,), Jitter(False, 0), 2.0, 3.0)
    batch = Batch(x[None], digits("train").y[:6][None], torch.arange(6)[None], torch.ones(1, 6))
    context = task().context(net, "test")
    seen = part.augment(context, batch)
    assert seen.x.shape == (1, 6, victim().values[blocks(victim())[1].value].elements)
    values, logits = teacher(x)
    shown = torch.cat([logits + 1.0, values.flatten(1) + 0.5], 1)[None]
    found = part.loss()(shown, seen, context)[0]
    soft = -((logits / 3).softmax(1) * (logits / 3).log_softmax(1)).sum(1)
    hard = torch.nn.functional.cross_entropy(logits, batch.y[0], reduction="none")
    torch.testing.assert_close(found, hard + 9 * soft + 2 * 0.25 / values.flatten(1).var(), atol=1e-4, rtol=1e-4)


def test_watched_blocks_are_those_before_the_resolution_changes():
    at = blocks(victim())
    strategy = Strategy("s", copies_from(1, at, foreign=False), division="blocks")
    monitor = Monitor(strategy.plan, victim(), at, 10)
    assert watched_blocks(monitor, at) == tuple(range(len(at) - 1))
    fresh = Strategy("m", (Block(1, "pw", 4), Block(3, "pw", 4)))
    assert watched_blocks(Monitor(fresh.plan, victim(), at, 10), at) == ()


def test_a_strategy_of_blocks_is_a_file_like_any_other(tmp_path):
    strategy = following().strategy
    strategy.write(tmp_path / "s.json")
    assert Strategy.read(tmp_path / "s.json") == strategy
    assert "of blocks" in strategy.describe()
    assert [c.value for c in strategy.divided(victim())] == [c.value for c in blocks(victim())]
    old = {key: value for key, value in strategy.to_json().items() if key not in ("division", "shift", "follow")}
    assert Strategy.from_json(old).divided(victim()) == stages(victim())


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"division": "layers"}, "division"),
        ({"shift": -1}, "shift and follow"),
        ({"follow": 1.0}, "follow 0 where shift is 0"),
        ({"preset": "anti", "shift": 2}, "shift and follow"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, part):
    with pytest.raises(ConfigError, match=part):
        Strategy("s", (Block(1, "stage"),), **wrong)


def test_the_open_range_names_the_private_records_that_set_it():
    found = following()
    inside, others = digits("train").x[:100], digits("holdout").x
    private = range_leak(deployment(found, inside), inside, others)
    assert private.attained >= 1
    assert isinstance(private.attack, AttackResult)
    assert private.attained / private.records > private.coincidences / len(others)
    clear = range_leak(deployment(found, digits("shadow").x), inside, others)
    assert clear.attained / clear.records <= 0.03
    assert "roc" not in private.to_json()
