"""Cross-fitted distillation: folds, and that no record's own label reaches its soft label."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.defenses import CrossFitDistillation, InputNoise
from edgeward.defenses.distillation import agreeing, held_out
from edgeward.train import Batch, Population, Schedule, fit
from train.train_toys import blobs, context, linear, normed, perceptron

SHORT = Schedule(epochs=3, batch=8, rate=0.05)


@given(
    records=st.integers(1, 40),
    teachers=st.integers(1, 8),
    data=st.data(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=120, deadline=None)
def test_each_record_and_group_is_held_out_of_exactly_l_teachers(records, teachers, data, seed):
    excluded = data.draw(st.integers(0, teachers - 1))
    grouped = data.draw(st.none() | st.lists(st.integers(-3, 5), min_size=records, max_size=records))
    groups = None if grouped is None else torch.tensor(grouped)
    hold = held_out(records, teachers, excluded, Seed(seed), groups)
    assert hold.shape == (teachers, records)
    assert (hold.sum(0) == excluded).all()
    for group in () if groups is None else groups.unique():
        columns = hold[:, groups == group]
        assert (columns == columns[:, :1]).all(), "a group is split over folds"
    assert torch.equal(hold, held_out(records, teachers, excluded, Seed(seed), groups))


def test_folds_are_balanced_on_average():
    hold = held_out(4000, 5, 2, Seed(1))
    assert (hold.float().mean(1) - 0.4).abs().max() < 0.03


def soft_labels(part, y, x=None, members=None):
    x = blobs(len(y))[0] if x is None else x
    made = context(linear, x, y, torch.ones(2, len(y), dtype=torch.bool) if members is None else members, SHORT)
    part.prepare(made, Population.initialise(linear, made.seeds))
    return made.memory["soft"]


@pytest.mark.parametrize("teacher", [perceptron, normed])
@pytest.mark.parametrize("lesson", [(), (InputNoise(0.5),)])
@pytest.mark.parametrize(("teachers", "excluded"), [(4, 1), (5, 3), (2, 1)])
def test_no_record_is_labelled_by_a_teacher_that_saw_its_label(teacher, lesson, teachers, excluded):
    """Fault injection: the same record with two labels gets the same soft label, and others do not."""
    part = CrossFitDistillation(teacher, teachers=teachers, excluded=excluded, lesson=lesson)
    y = blobs(24)[1]
    planted = y.clone()
    planted[5] = 1 - planted[5]
    first, second = soft_labels(part, y), soft_labels(part, planted)
    assert torch.equal(first[:, 5], second[:, 5])
    others = torch.arange(24) != 5
    assert not torch.equal(first[:, others], second[:, others]), "the planted label taught nobody"


def test_a_teacher_that_saw_the_record_does_leak_its_label():
    y = blobs(24)[1]
    planted = y.clone()
    planted[5] = 1 - planted[5]
    part = CrossFitDistillation(perceptron, teachers=1, excluded=0)
    first, second = soft_labels(part, y), soft_labels(part, planted)
    assert not torch.equal(first[:, 5], second[:, 5])
    toward = second[:, 5, planted[5]] - first[:, 5, planted[5]]
    assert (toward > 0).all()


def test_a_group_shields_its_twins():
    """A record and its copy in one group: neither label reaches the other's soft label; ungrouped it does."""
    x, y = blobs(24)
    x[6] = x[5]
    planted = y.clone()
    planted[6] = 1 - planted[6]
    groups = torch.arange(24)
    groups[6] = groups[5]
    shielded = CrossFitDistillation(perceptron, teachers=4, excluded=1, grouped=groups)
    assert torch.equal(soft_labels(shielded, y, x)[:, 5], soft_labels(shielded, planted, x)[:, 5])
    alone = CrossFitDistillation(perceptron, teachers=4, excluded=1)
    assert not torch.equal(soft_labels(alone, y, x)[:, 5:7], soft_labels(alone, planted, x)[:, 5:7])


def test_non_members_teach_nobody():
    y = blobs(24)[1]
    members = torch.ones(2, 24, dtype=torch.bool)
    members[0, 7] = False
    planted = y.clone()
    planted[7] = 1 - planted[7]
    part = CrossFitDistillation(perceptron, teachers=3, excluded=1)
    first, second = soft_labels(part, y, members=members), soft_labels(part, planted, members=members)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize(("teachers", "excluded"), [(1, 0), (3, 0), (4, 2)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_are_distributions(teachers, excluded, temperature):
    part = CrossFitDistillation(linear, teachers=teachers, excluded=excluded, temperature=temperature)
    soft = soft_labels(part, blobs(20)[1])
    assert soft.shape == (2, 20, 2)
    torch.testing.assert_close(soft.sum(-1), torch.ones(2, 20))
    assert (soft >= 0).all()


def test_reference_transfer_never_shows_the_student_a_private_record():
    """The student's weights are the same whatever the private inputs are, given the teacher's labels."""
    reference = blobs(16, seed=3)[0]
    x, y = blobs(20)
    part = CrossFitDistillation(linear, teachers=1, excluded=0, transfer="reference", reference=reference)
    made = context(linear, x, y, torch.ones(2, 20, dtype=torch.bool), SHORT)
    taught = fit(Population.initialise(linear, made.seeds), made, [part])
    assert torch.equal(made.x, reference)
    assert made.members.shape == (2, 16)
    other = context(linear, torch.full_like(x, torch.inf), 1 - y, torch.ones(2, 20, dtype=torch.bool), SHORT)
    other.memory["soft"] = made.memory["soft"]
    again = fit(Population.initialise(linear, other.seeds), other, [part])
    assert all(torch.equal(tensor, again.params[name]) for name, tensor in taught.params.items())


def batch_of(x, y, models=2):
    index = torch.stack([torch.randperm(len(x), generator=Seed(s).torch()) for s in range(models)])
    return Batch(x[index], y[index], index, torch.ones(index.shape))


@pytest.mark.parametrize("mixing", [0.0, 0.3, 1.0])
def test_mixing_keeps_targets_distributions_and_inputs_between(mixing):
    x, y = blobs(18)
    part = CrossFitDistillation(linear, teachers=3, excluded=1, mixing=mixing)
    made = context(linear, x, y, torch.ones(2, 18, dtype=torch.bool), SHORT)
    part.prepare(made, Population.initialise(linear, made.seeds))
    batch = batch_of(x, y)
    mixed = part.augment(made, batch)
    torch.testing.assert_close(mixed.target.sum(-1), torch.ones(2, 18))
    assert (mixed.target >= 0).all()
    assert mixed.x.amax() <= x.amax() + 1e-6
    assert mixed.x.amin() >= x.amin() - 1e-6
    assert torch.equal(mixed.x, batch.x) == (mixing == 0.0)
    if mixing:
        moved = (mixed.x - batch.x).flatten(2).norm(dim=-1)
        span = torch.cdist(batch.x, batch.x).amax(-1)
        assert (moved <= span / 2 + 1e-5).all(), "a record kept less than half of itself"


def test_loss_is_the_mixture_of_hard_and_soft_cross_entropy():
    x, y = blobs(12)
    made = context(linear, x, y, torch.ones(2, 12, dtype=torch.bool), SHORT)
    made.memory["soft"] = torch.rand(2, 12, 2, generator=Seed(4).torch()).softmax(-1)
    batch = batch_of(x, y)
    logits = torch.randn(2, 12, 2, generator=Seed(5).torch())
    part = CrossFitDistillation(linear, teachers=1, excluded=0, alpha=0.25, temperature=2.0)
    found = part.loss()(logits, batch, made)
    for s in range(2):
        for i in range(12):
            soft = made.memory["soft"][s, batch.index[s, i]]
            hard = nn.functional.cross_entropy(logits[s, i], batch.y[s, i])
            gentle = nn.functional.cross_entropy(logits[s, i] / 2.0, soft) * 4.0
            torch.testing.assert_close(found[s, i], 0.25 * hard + 0.75 * gentle)


@pytest.mark.parametrize(
    "bad",
    [
        {"teachers": 0, "excluded": 0},
        {"teachers": 3, "excluded": 3},
        {"teachers": 3, "excluded": -1},
        {"alpha": 1.5},
        {"temperature": 0.0},
        {"mixing": -1.0},
        {"transfer": "public"},
        {"transfer": "reference", "excluded": 0},
    ],
)
def test_impossible_distillations_are_refused(bad):
    with pytest.raises(ConfigError, match="cannot be"):
        CrossFitDistillation(linear, **bad)


def test_too_few_records_for_the_folds_is_a_data_error():
    x, y = blobs(2)
    part = CrossFitDistillation(linear, teachers=2, excluded=1)
    made = context(linear, x, y, torch.tensor([[True, False]]), SHORT)
    with pytest.raises(DataError, match="no member"):
        part.prepare(made, Population.initialise(linear, made.seeds))


def test_statement_claims_a_proof_only_for_held_out_records():
    x, y = blobs(8)
    made = context(linear, x, y, torch.ones(1, 8, dtype=torch.bool), SHORT)
    paper = CrossFitDistillation(linear, teachers=1, excluded=0)
    assert [claim.basis for claim in paper.statement(made)] == ["measured"]
    crossfit = replace(paper, teachers=5, excluded=2)
    (claim,) = crossfit.statement(made)
    assert claim.basis == "proved"
    assert "near-duplicates" in claim.statement


def test_votes_are_the_class_the_soft_labels_favour():
    y = blobs(30)[1]
    soft = soft_labels(CrossFitDistillation(perceptron, teachers=4, excluded=2), y)
    votes = soft_labels(CrossFitDistillation(perceptron, teachers=4, excluded=2, answers="vote"), y)
    assert torch.equal(votes.sum(-1), torch.ones(votes.shape[:2]))
    assert torch.equal(votes.argmax(-1), soft.argmax(-1))


@given(st.integers(1, 4), st.integers(1, 12), st.integers(2, 4), st.floats(0.0, 0.99), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_consensus_keeps_members_on_which_teachers_agree(models, records, classes, consensus, seed):
    generator = Seed(seed).torch()
    soft = torch.rand(models, records, classes, generator=generator).softmax(-1)
    members = torch.rand(models, records, generator=generator) < 0.5
    members[:, 0] = True
    kept = agreeing(members, soft, consensus)
    assert not (kept & ~members).any()
    assert kept.any(1).all()
    for s in range(models):
        own = [r for r in range(records) if members[s, r]]
        sure = {r for r in own if float(soft[s, r].max()) >= consensus}
        best = sorted(own, key=lambda r: -float(soft[s, r].max()))[: math.ceil(len(own) / 4)]
        assert set(kept[s].nonzero().squeeze(1).tolist()) == sure | set(best)


def test_a_record_that_only_itself_explains_teaches_the_student_nothing():
    """Fault injection: a record between the classes, of which no teacher is sure."""
    x, y = blobs(24)
    x[0] = 0.0
    made = context(linear, x, y, torch.ones(2, 24, dtype=torch.bool), SHORT)
    part = CrossFitDistillation(linear, teachers=4, excluded=2, consensus=0.9, schedule=replace(SHORT, epochs=30))
    part.prepare(made, Population.initialise(linear, made.seeds))
    assert not made.members[:, 0].any()
    assert made.members.sum(1).min() > 4
    (claim,) = part.statement(made)
    assert "agreed below 0.9" in claim.statement
    again = made.members.clone()
    part.prepare(made, Population.initialise(linear, made.seeds))
    assert torch.equal(made.members, again)
    assert part.statement(made) == (claim,)
