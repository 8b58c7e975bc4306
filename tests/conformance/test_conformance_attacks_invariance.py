"""Every registered attack under changes that say nothing about membership, and under answers at the ends of float32."""

import functools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import overfitted
from edgeward.attacks import ATTACKS, Signals
from edgeward.attacks.membership.audit import leave_one_out
from edgeward.core.randomness import Seed

MODELS, POINTS, POPULATION, CLASSES = 6, 14, 9, 4
# Few seeds: what the attacks say of the unchanged answers is kept.
SEEDS = st.integers(0, 5)
few = settings(max_examples=3, deadline=None)


@dataclass
class Answers:
    """Answers of six models, with a real trace of membership, and what can be done to them."""

    logits: torch.Tensor
    labels: torch.Tensor
    keep: torch.Tensor
    z: torch.Tensor
    z_labels: torch.Tensor

    @classmethod
    def of(cls, seed):
        generator = Seed(seed).torch()
        keep = overfitted.balanced_keep(MODELS, POINTS, Seed(seed).child("keep"))
        labels = torch.randint(0, CLASSES, (POINTS,), generator=generator)
        z_labels = torch.randint(0, CLASSES, (POPULATION,), generator=generator)
        logits = 2 * torch.randn(MODELS, POINTS, CLASSES, generator=generator, dtype=torch.float64)
        z = 2 * torch.randn(MODELS, POPULATION, CLASSES, generator=generator, dtype=torch.float64)
        at = labels.expand(MODELS, -1)[..., None]
        logits.scatter_add_(2, at, 1.0 + 1.5 * keep[..., None].double())
        z.scatter_add_(2, z_labels.expand(MODELS, -1)[..., None], torch.ones(MODELS, POPULATION, 1).double())
        return cls(logits, labels, keep, z, z_labels)

    def signals(self):
        return Signals(self.logits, self.labels, self.keep, self.z, self.z_labels)

    def scores(self):
        signals = self.signals()
        return {name: leave_one_out(signals, attack) for name, attack in ATTACKS.items()}


@functools.cache
def plain_scores(seed):
    return Answers.of(seed).scores()


def assert_same(found, expected):
    for name, scores in found.items():
        assert scores.isfinite().all(), name
        torch.testing.assert_close(
            scores, expected[name], rtol=1e-7, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


@given(SEEDS)
@few
def test_renumbered_classes(seed):
    plain, moved = Answers.of(seed), Answers.of(seed)
    order = torch.randperm(CLASSES, generator=Seed(seed).child("classes").torch())
    number = order.argsort()
    moved.logits, moved.z = plain.logits[..., order], plain.z[..., order]
    moved.labels, moved.z_labels = number[plain.labels], number[plain.z_labels]
    assert_same(moved.scores(), plain_scores(seed))


@given(SEEDS)
@few
def test_reordered_records(seed):
    plain, moved = Answers.of(seed), Answers.of(seed)
    order = torch.randperm(POINTS, generator=Seed(seed).child("points").torch())
    mixed = torch.randperm(POPULATION, generator=Seed(seed).child("population").torch())
    moved.logits, moved.labels, moved.keep = plain.logits[:, order], plain.labels[order], plain.keep[:, order]
    moved.z, moved.z_labels = plain.z[:, mixed], plain.z_labels[mixed]
    assert_same(moved.scores(), {name: scores[:, order] for name, scores in plain_scores(seed).items()})


@given(SEEDS, st.integers(1, MODELS - 1))
@few
def test_models_counted_from_another_one(seed, shift):
    # Where a point has one IN model more than OUT models, the last in turn is left out: the turn must stay.
    plain, moved = Answers.of(seed), Answers.of(seed)
    moved.logits, moved.keep, moved.z = (t.roll(shift, 0) for t in (plain.logits, plain.keep, plain.z))
    assert_same(moved.scores(), {name: scores.roll(shift, 0) for name, scores in plain_scores(seed).items()})


@given(SEEDS, st.sampled_from([1e-3, 1.0, 50.0, 1e4]))
@few
def test_logits_shifted_by_record(seed, size):
    plain, moved = Answers.of(seed), Answers.of(seed)
    generator = Seed(seed).child("shift").torch()
    # Float64 answers lose 1e-12 to a shift of 1e4: far less than the tolerance.
    moved.logits = plain.logits + size * torch.randn(MODELS, POINTS, 1, generator=generator).double()
    moved.z = plain.z + size * torch.randn(MODELS, POPULATION, 1, generator=generator).double()
    assert_same(moved.scores(), plain_scores(seed))


@given(SEEDS, st.integers(0, CLASSES))
@few
def test_a_class_that_no_record_has_and_no_model_answers(seed, place):
    plain, moved = Answers.of(seed), Answers.of(seed)

    def widened(logits):
        empty = torch.full((*logits.shape[:2], 1), -torch.inf, dtype=torch.float64)
        return torch.cat([logits[..., :place], empty, logits[..., place:]], -1)

    moved.logits, moved.z = widened(plain.logits), widened(plain.z)
    moved.labels = plain.labels + (plain.labels >= place)
    moved.z_labels = plain.z_labels + (plain.z_labels >= place)
    assert_same(moved.scores(), plain_scores(seed))


@given(SEEDS, st.sampled_from([2.0**-20, 0.3, 7.0, 2.0**20]))
@few
def test_who_sees_labels_alone_sees_no_scale(seed, factor):
    moved = Answers.of(seed)
    shift = torch.arange(MODELS, dtype=torch.float64)[:, None, None]
    moved.logits, moved.z = factor * (moved.logits + shift), factor * (moved.z + shift)
    blind = [attack for attack in ATTACKS.values() if attack.access == "label"]
    assert blind
    for attack in blind:
        assert leave_one_out(moved.signals(), attack).equal(plain_scores(seed)[attack.name]), attack.name


def extremes():
    for factor in (1e-30, 1e-3, 1e4, 1e37):
        yield f"times {factor:g}", lambda logits, f=factor: logits * f
    yield "all equal", torch.zeros_like
    yield (
        "impossible but for one class",
        lambda logits: logits.where(logits == logits.amax(-1, keepdim=True), -torch.inf),
    )
    yield "every class twice", lambda logits: logits[..., torch.tensor([0, 0, 2, 2])]
    yield "one class always", lambda logits: logits + torch.tensor([3e4, 0, 0, 0])


@pytest.mark.parametrize(("what", "change"), [pytest.param(*case, id=case[0]) for case in extremes()])
def test_answers_at_the_ends_of_float32_give_finite_scores(what, change):
    case = Answers.of(7)
    case.logits, case.z = change(case.logits.float()), change(case.z.float())
    for name, scores in case.scores().items():
        assert scores.isfinite().all(), f"{name}: {what}"
        assert scores.dtype == torch.float64


@pytest.mark.parametrize("places", [(0,), (3,), (0, 5)])
def test_models_of_different_scale_give_finite_scores(places):
    # One model saturated, the others not: spreads of a thousand nats beside spreads of one.
    case = Answers.of(8)
    for place in places:
        case.logits[place] *= 1e4
        case.z[place] *= 1e4
    for name, scores in case.scores().items():
        assert scores.isfinite().all(), name
