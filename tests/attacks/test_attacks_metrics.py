"""Rates against brute-force definitions, scikit-learn and simulation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from edgeward.attacks.metrics import Curve, auc, transferred
from edgeward.core.errors import DataError
from edgeward.core.interval import Estimate


@st.composite
def trials(draw, low=2, high=60):
    """Scores with many ties, and both kinds of trials."""
    count = draw(st.integers(low, high))
    scores = draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
    truth = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    truth[0], truth[1] = True, False
    return torch.tensor(scores).double() / 3, torch.tensor(truth)


def brute_tpr(scores, truth, fpr):
    """Pass the highest scores one distinct value after the other, and of the value that would pass too many a share."""
    allowed = math.floor(fpr * int((~truth).sum()) + 1e-9)
    true = false = 0
    for value in sorted(set(scores.tolist()), reverse=True):
        tied = scores == value
        members, others = int((tied & truth).sum()), int((tied & ~truth).sum())
        if false + others > allowed:
            return (true + math.floor(members * (allowed - false) / others + 1e-9)) / int(truth.sum())
        true, false = true + members, false + others
    return true / int(truth.sum())


@given(trials(), st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 0.3, 0.5, 1.0]))
def test_tpr_at_fpr_is_the_definition(case, fpr):
    scores, truth = case
    assert Curve.of(scores, truth).tpr_at(fpr).value == pytest.approx(brute_tpr(scores, truth, fpr), abs=1e-12)


@given(trials())
def test_area_is_scikit_learns(case):
    scores, truth = case
    estimate = auc(scores, truth)
    assert estimate.value == pytest.approx(roc_auc_score(truth.numpy(), scores.numpy()), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


@given(trials())
def test_area_of_the_mirrored_problem(case):
    scores, truth = case
    straight, mirrored = auc(scores, truth), auc(scores, ~truth)
    assert mirrored.value == pytest.approx(1 - straight.value, abs=1e-12)
    assert mirrored.low == pytest.approx(1 - straight.high, abs=1e-9)


@given(trials())
def test_balanced_accuracy_is_the_best_threshold(case):
    scores, truth = case
    best = 0.5
    for threshold in scores.tolist():
        passed = scores >= threshold
        best = max(best, float(passed[truth].double().mean() + (~passed)[~truth].double().mean()) / 2)
    assert Curve.of(scores, truth).balanced_accuracy() == pytest.approx(best, abs=1e-12)


@given(trials(high=400))
@settings(max_examples=30)
def test_thinned_curve_rises_from_corner_to_corner_along_the_curve(case):
    scores, truth = case
    curve = Curve.of(scores, truth)
    points = np.array(curve.thinned())
    assert tuple(points[0]) == (0.0, float(curve.true[curve.strictest_below(0)] > 0) and points[0][1])
    assert tuple(points[-1]) == (1.0, 1.0)
    assert (np.diff(points, axis=0) >= 0).all()
    for fpr, tpr in points:
        assert tpr <= brute_tpr(scores, truth, fpr) + 1e-12


def test_thinned_curve_is_short_and_dense_where_it_matters():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(40_000) % 2 == 0
    scores = torch.randn(40_000, generator=generator).double() + truth.double()
    points = Curve.of(scores, truth).thinned()
    assert 100 < len(points) <= 200
    assert sum(fpr <= 0.01 for fpr, _ in points) >= 40
    area = np.trapezoid([t for _, t in points], [f for f, _ in points])
    assert area == pytest.approx(auc(scores, truth).value, abs=2e-3)


def test_equal_scores_are_chance_at_every_level():
    scores, truth = torch.zeros(200).double(), torch.arange(200) % 2 == 0
    curve = Curve.of(scores, truth)
    assert auc(scores, truth).value == 0.5
    assert (curve.tpr_at(0.01).value, curve.tpr_at(0.001).value) == (0.01, 0.0)
    assert curve.balanced_accuracy() == 0.5
    assert curve.thinned() == ((0.0, 0.0), (1.0, 1.0))


def test_perfect_separation_still_has_a_width():
    truth = torch.arange(40) < 20
    perfect = auc(truth.double(), truth)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.8 < perfect.low < 0.97
    reverse = auc((~truth).double(), truth)
    assert (reverse.value, reverse.low) == (0.0, 0.0)
    assert reverse.high == pytest.approx(1 - perfect.low, abs=1e-9)


def test_a_level_that_divides_evenly_is_not_lost_to_rounding():
    # 3 of 300 non-members above every member's rival: exactly 1 % of 300.
    scores = torch.cat([torch.full((10,), 2.0), torch.full((3,), 3.0), torch.zeros(297)]).double()
    truth = torch.arange(310) < 10
    assert Curve.of(scores, truth).tpr_at(0.01).value == 1.0
    assert Curve.of(scores, truth).tpr_at(0.009).value == 0.0


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        ([0.0, 1.0], [True, True]),
        ([0.0, 1.0], [False, False]),
        ([0.0, math.nan], [True, False]),
        ([0.0], [True, False]),
    ],
)
def test_what_cannot_be_judged_is_refused(scores, truth):
    with pytest.raises(DataError, match="cannot be judged"):
        Curve.of(torch.tensor(scores).double(), torch.tensor(truth))


def test_newcombe_interval_covers_the_true_area():
    generator = np.random.default_rng(1)
    shift = 1.2
    true_area = 0.5 * (1 + math.erf(shift / 2))
    truth = torch.arange(80) < 40
    inside = 0
    for _ in range(400):
        scores = torch.from_numpy(generator.normal(size=80)) + shift * truth.double()
        estimate = auc(scores, truth)
        inside += estimate.low <= true_area <= estimate.high
    assert 0.92 <= inside / 400 <= 0.99


def test_clopper_pearson_covers_at_least_its_level():
    generator = np.random.default_rng(2)
    for rate in (0.01, 0.2, 0.5):
        hits = generator.binomial(60, rate, size=1000)
        table = {k: Estimate.proportion(int(k), 60) for k in set(hits.tolist())}
        assert sum(table[k].low <= rate <= table[k].high for k in hits.tolist()) >= 935


def test_transferred_thresholds_are_chosen_without_the_target():
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(6, 500, generator=generator) < 0.5
    scores = torch.randn(6, 500, generator=generator).double() + 2 * truth.double()
    tpr, fpr = transferred(scores, truth, 0.01)
    expected_true = expected_false = 0
    for t in range(6):
        rest = [s for s in range(6) if s != t]
        rivals = torch.sort(scores[rest][~truth[rest]], descending=True).values
        allowed = int(0.01 * len(rivals))
        above = scores[rest][truth[rest]]
        threshold = float(above[above > rivals[allowed]].min())
        expected_true += int((scores[t][truth[t]] >= threshold).sum())
        expected_false += int((scores[t][~truth[t]] >= threshold).sum())
    # The library may also stop at a tolerated non-member between the two: same TPR on the others, so compare loosely.
    assert tpr == pytest.approx(expected_true / int(truth.sum()), abs=0.01)
    assert fpr == pytest.approx(expected_false / int((~truth).sum()), abs=0.004)


def test_transferred_thresholds_reveal_a_shifted_target():
    generator = torch.Generator().manual_seed(4)
    truth = torch.rand(4, 400, generator=generator) < 0.5
    scores = torch.randn(4, 400, generator=generator).double()
    scores[0] += 10
    tpr, fpr = transferred(scores, truth, 0.01)
    # Every trial of the shifted model passes the thresholds of the others: a quarter of all.
    assert fpr > 0.24
    assert tpr > 0.24
