"""The rules of the stealing audit: budgets, label-only access, repetition, what is trained, and refused settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Attacker, Exposure, query_budgets, stealing
from edgeward.attacks.extraction.attacker import VARIANTS
from edgeward.attacks.extraction.audit import runner
from edgeward.attacks.extraction.queries import LabelWindow
from edgeward.attacks.extraction.stealing import Thief, seeds_of
from edgeward.attacks.extraction.surrogate import parameter_name
from edgeward.attacks.oracle import Oracle
from edgeward.core.errors import AccessViolation, ConfigError, DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records

pytest_plugins = ["attacks.stealing_fixtures"]


def test_every_attacker_asks_its_budget_and_the_victim_at_most_once_per_record(victim, parent):
    asked = []
    run = runner(victim)
    oracle = Oracle(lambda x: asked.append(len(x)) or run(x), "label")
    window = LabelWindow(oracle, toys.QUERIES)
    quick = replace(toys.ATTACKER, variants=("new head",), epochs=1, steps=1)
    exposure = toys.black_box(victim, parent.tensors)
    thief = Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(3), quick)
    thief.steal(30)
    first = sum(asked)
    assert 30 < first <= 90
    thief.steal(30)
    assert sum(asked) == first == window.asked


def test_the_budget_is_a_hard_limit(victim):
    allowance = LabelWindow(toys.labels_of(victim), toys.QUERIES).allowance(10)
    assert len(allowance.labels(torch.arange(8))) == 8
    with pytest.raises(AccessViolation, match="8 asked, 3 more wanted"):
        allowance.labels(torch.arange(3))
    assert len(allowance.labels(torch.arange(2))) == 2


def test_the_victim_shows_labels_only(victim):
    oracle = toys.labels_of(victim)
    with pytest.raises(AccessViolation, match="confidence"):
        oracle.log_confidences(toys.QUERIES.x.numpy())
    labels = LabelWindow(oracle, toys.QUERIES).labels(torch.arange(5))
    deployed = LabelWindow(lambda x: runner(victim)(x).argmax(1), toys.QUERIES)
    assert torch.equal(labels, deployed.labels(torch.arange(5)))
    with pytest.raises(ModelError, match="not labels"):
        LabelWindow(runner(victim), toys.QUERIES).labels(torch.arange(5))


QUICK = replace(toys.ATTACKER, variants=("fine-tuned", "new head", "monitor on taps"), epochs=3, steps=3)


def test_the_same_seeds_repeat_and_others_differ(victim, parent):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))

    def predictions(seeds, attacker=QUICK):
        window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
        return Thief(exposure, window, toys.JUDGES.x, 10, seeds, attacker).steal(60)

    one, again, other = (predictions(seeds) for seeds in (seeds_of(2), seeds_of(2), (Seed(77), Seed(78))))
    assert torch.equal(one.predictions, again.predictions)
    assert one.tried == again.tried
    assert not torch.equal(one.predictions, other.predictions)
    assert not torch.equal(one.predictions[0], one.predictions[1])


def test_labels_of_the_holdout_and_of_the_pool_choose_nothing(victim, parent, ends):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))
    shuffled = toys.Y[toys.POOL].roll(1), toys.Y[toys.HOLDOUT].roll(1)
    chosen = []
    for pool, judges in ((toys.Y[toys.POOL], toys.Y[toys.HOLDOUT]), shuffled):
        window = LabelWindow(toys.labels_of(victim), Records(toys.X[toys.POOL], pool, "pool"))
        # the judge's classes rank rivals in hindsight; what the thief itself takes does not depend on them
        thief = Thief(exposure, window, toys.JUDGES.x, int(judges.max()) + 1, seeds_of(2), QUICK, truth=judges)
        chosen.append(thief.steal(60))
    assert chosen[0].tried == chosen[1].tried
    assert torch.equal(chosen[0].predictions, chosen[1].predictions)


def last_population(exposure, victim, monkeypatch):
    """Attack by training the hidden part and return the models that were handed in."""
    seen = []
    real = stealing.trained

    def spying(*positional, **named):
        seen.append(real(*positional, **named))
        return seen[-1]

    monkeypatch.setattr(stealing, "trained", spying)
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    attacker = replace(QUICK, variants=("hidden part trained",))
    Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(1), attacker).steal(30)
    return seen[-1]


def test_freezing_leaves_the_visible_part_alone(victim, parent, monkeypatch):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim))
    state = last_population(exposure, victim, monkeypatch).state(0)
    for key, tensor in victim.tensors.items():
        assert torch.equal(state[parameter_name(key)], tensor) == (key in exposure.visible)


def test_a_rate_that_diverges_loses_and_does_not_stop_the_audit(victim, parent):
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    wild = replace(QUICK, variants=("fine-tuned",), rates=(1e30, 1e-3))
    theft = Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(2), wild).steal(30)
    assert theft.best.rate == 1e-3
    assert theft.tried[0].validation == 0
    hopeless = replace(wild, rates=(1e30,))
    with pytest.raises(ModelError, match="every attack on 'black box' diverged"):
        Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(2), hopeless).steal(30)


def test_only_missing_entries_are_trained_and_the_others_stay(victim, monkeypatch):
    exposure = Exposure.of("magnitude", victim, {}).zeroing(0.05)
    state = last_population(exposure, victim, monkeypatch).state(0)
    for key, tensor in exposure.visible.items():
        found, gone = state[parameter_name(key)], tensor == 0
        assert torch.equal(found[~gone], tensor[~gone])
        assert not gone.any() or not torch.equal(found[gone], tensor[gone])


@pytest.mark.parametrize("variant", ["head on taps", "head and taps trained", "monitor on taps"])
def test_a_single_image_tap_is_enough(victim, variant):
    shown = replace(victim, outputs=toys.relus(victim)[:1])
    visible = {k: t for k, t in victim.tensors.items() if "0.conv2d" in k}
    exposure = Exposure("tap", shown, visible, {}, taps=shown.outputs, answer=None)
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    attacker = replace(toys.ATTACKER, variants=(variant,))
    theft = Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(1), attacker).steal(100)
    assert (theft.predictions == toys.JUDGES.y).double().mean() > 0.15


def test_budgets_are_counts_or_shares():
    assert query_budgets((50, 500, 0.01), 10_000) == (50, 100, 500)
    for wrong in ((), (0,), (-3,), (1e-5,)):
        with pytest.raises(ConfigError, match="cannot be audited"):
            query_budgets(wrong, 1000)


def test_a_pool_smaller_than_the_budget_is_refused(victim, parent):
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    thief = Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(1), QUICK)
    with pytest.raises(DataError, match="the pool holds 300 records"):
        thief.steal(301)


def test_settings_that_cannot_attack_are_refused():
    with pytest.raises(ConfigError, match="fine-tuned"):
        Attacker(variants=("fine tuned",))
    with pytest.raises(ConfigError, match="validation"):
        Attacker(validation=1.0)
    assert set(Attacker().variants) == set(VARIANTS)


def test_records_asked_before_are_not_asked_again():
    asked = []

    def answer(x):
        asked.append(len(x))
        return np.zeros(len(x), np.int64)

    window = LabelWindow(answer, Records(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), "pool"))
    rows = torch.tensor([0, 2])
    assert window.labels(rows).tolist() == window.labels(rows).tolist() == [0, 0]
    assert asked == [2]
