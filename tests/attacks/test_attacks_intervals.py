"""Intervals over records and models: coverage by simulation, and the pieces against slow definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from attacks.drawn_scores import INDEPENDENT, MIXED, draw, true_auc
from edgeward.attacks.clustered import clustered_auc, share
from edgeward.attacks.clusters import Clusters
from edgeward.attacks.influence import area, passing, tpr
from edgeward.attacks.membership.audit import judge
from edgeward.attacks.metrics import auc, transferred_accuracy
from edgeward.core.interval import Estimate

DRAWS = 300


def covered(effects, true_tpr, models, records, twins=1, grouped=True, draws=DRAWS):
    """Share of draws whose intervals (TPR at 1 % FPR, AUC) hold the true rates."""
    generator = np.random.default_rng(11)
    inside = np.zeros(2)
    for _ in range(draws):
        scores, truth, groups = draw(generator, models, records, true_tpr, effects, twins)
        clusters = Clusters.of(np.arange(models), groups if grouped else np.arange(records))
        s, t = scores.ravel(), truth.ravel()
        found = share(tpr(s, t, 0.01, clusters), clusters, int(t.sum())), clustered_auc(s, t, clusters)
        true = true_tpr, true_auc(true_tpr, effects)
        inside += [e.low <= rate <= e.high for e, rate in zip(found, true, strict=True)]
    return inside / draws


# 300 draws at 95 % have a standard error of 1.3 points: two of them on either side of 93 to 97 %.
@pytest.mark.parametrize(("true_tpr", "twins"), [(0.04, 1), (0.3, 2), (0.7, 1)])
def test_intervals_cover_other_records_and_models(true_tpr, twins):
    rate, area = covered(MIXED, true_tpr, 16, 60, twins)
    assert 0.90 <= rate <= 0.99
    assert 0.90 <= area <= 0.99


def test_intervals_of_no_leak_cover_chance():
    rate, area = covered(INDEPENDENT, 0.01, 16, 60)
    assert rate >= 0.93
    assert 0.90 <= area <= 0.99


def test_ignoring_twins_is_too_sure():
    # What the groups are for: the same draws of four nearly equal copies each, taken together or one by one.
    alike = (0.3, 0.0, 0.2, 1.0)
    together, apart = (covered(alike, 0.7, 16, 100, 4, grouped, 100) for grouped in (True, False))
    assert (apart < 0.85).all()
    assert (together > apart + 0.1).all()


def test_trials_of_one_record_are_not_independent():
    # The interval in use before: 16 trials of a record that is always found, or never, count once, not 16 times.
    generator = np.random.default_rng(3)
    scores, truth, _ = draw(generator, 16, 100, 0.5, (0.0, 0.0, 0.1, 3.0))
    found = judge("a", torch.from_numpy(scores), torch.from_numpy(truth)).tpr_at_1pct
    alone = Estimate.proportion(round(found.value * truth.sum()), int(truth.sum()))
    assert found.high - found.low > 2 * (alone.high - alone.low)
    assert found.method == "clustered"


def test_nothing_and_everything_found_count_each_record_once():
    truth = np.arange(40)[None] // 20 == np.arange(2)[:, None]
    clusters = Clusters.of(np.arange(2), np.arange(40))
    for scores, value in ((truth.astype(float), 1.0), (-truth.astype(float), 0.0)):
        found = share(tpr(scores.ravel(), truth.ravel(), 0.01, clusters), clusters, 40)
        edge = float(beta.ppf(0.025, 40.5, 0.5))
        expected = (edge, 1.0) if value else (0.0, 1 - edge)
        assert (found.value, found.low, found.high) == pytest.approx((value, *expected))


@given(st.integers(0, 10**6), st.sampled_from([(5, 6, 6), (4, 8, 3), (1, 9, 9), (6, 4, 1)]))
def test_variance_is_the_sum_over_pairs_that_share_a_cluster(seed, sizes):
    models, records, count = sizes
    generator = np.random.default_rng(seed)
    groups = generator.permutation(np.arange(records) % count)
    clusters = Clusters.of(np.arange(models), groups)
    influence = generator.normal(size=(models, records))
    spread = clusters.spread(influence.ravel())

    def pairs(same):
        flat = [(s, groups[i], influence[s, i]) for s in range(models) for i in range(records)]
        return sum(a[2] * b[2] for a in flat for b in flat if same(a, b))

    def corrected(value, number):
        return value * number / (number - 1) if number > 1 else 0.0

    by_record = corrected(pairs(lambda a, b: a[1] == b[1]), count)
    by_model = corrected(pairs(lambda a, b: a[0] == b[0]), models)
    cells = corrected(pairs(lambda a, b: a[:2] == b[:2]), count * models)
    both = by_record + by_model - cells if min(count, models) > 1 else 0.0
    assert spread.variance == pytest.approx(max(both, by_record, by_model))
    assert spread.records == count
    assert spread.freedom >= max(1, min(count, models) - 1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 3), st.floats(0, 6))
def test_passing_breaks_ties_by_lot(rivals, score, rank):
    # Every order of the tied, the score among them, is as likely as another.
    def chance(k):
        if k <= 0 or k > len(rivals):
            return float(k > 0)
        before, tied = sum(r > score for r in rivals), sum(r == score for r in rivals)
        return sum(before + j < k for j in range(tied + 1)) / (tied + 1)

    whole = int(rank)
    expected = (1 - rank + whole) * chance(whole) + (rank - whole) * chance(whole + 1)
    found = passing(np.array([float(score)]), np.sort(np.array(rivals, dtype=float)), rank)
    assert found[0] == pytest.approx(expected)


def test_no_leak_has_the_expected_rate():
    # 120 non-members: the ROC's own TPR at 1 % FPR, which lets one of them pass, is 2 / 121 on average.
    generator = np.random.default_rng(4)
    truth = np.arange(240) < 120
    clusters = Clusters.of(np.arange(1), np.arange(240))
    found = [tpr(generator.normal(size=240), truth, 0.01, clusters).value for _ in range(800)]
    assert np.mean(found) == pytest.approx(0.01, abs=4 * np.std(found) / np.sqrt(800))


@given(st.integers(0, 10**6))
def test_influence_is_what_leaving_a_trial_out_changes(seed):
    generator = np.random.default_rng(seed)
    scores, truth = generator.integers(0, 5, 12) / 2.0, np.arange(12) < 5
    rate = area(scores, truth)
    assert rate.value == pytest.approx(auc(torch.from_numpy(scores), torch.from_numpy(truth)).value)
    assert rate.influence.sum() == pytest.approx(0)
    for i in range(12):
        rest = np.arange(12) != i
        without = area(scores[rest], truth[rest]).value
        kind = int((truth == truth[i]).sum())
        assert rate.influence[i] == pytest.approx((kind - 1) / kind * (rate.value - without))


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_rates_do_not_depend_on_the_order_of_records_or_models(seed):
    generator = np.random.default_rng(seed)
    truth = np.arange(6)[:, None] % 2 == generator.integers(0, 2, 8)[None]
    truth[:2, 0] = [True, False]
    scores = generator.integers(0, 4, (6, 8)).astype(float)
    groups = np.arange(8) // 2
    truth = truth[:, groups * 2]
    results = []
    for order, models in ((np.arange(8), np.arange(6)), (generator.permutation(8), generator.permutation(6))):
        parts = (torch.from_numpy(a[models][:, order].copy()) for a in (scores, truth))
        results.append(judge("a", *parts, groups=torch.from_numpy(groups[order])))
    a, b = results
    for rate in ("auc", "tpr_at_1pct", "tpr_at_0_1pct"):
        first, second = getattr(a, rate), getattr(b, rate)
        assert first.value == second.value
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-9)
    assert a.roc == b.roc
    assert a.balanced_accuracy == b.balanced_accuracy
    assert a.realistic_balanced_accuracy == pytest.approx(b.realistic_balanced_accuracy)


def test_transferred_balanced_accuracy_is_chosen_without_the_target():
    generator = np.random.default_rng(5)
    truth = generator.random((6, 300)) < 0.5
    scores = generator.normal(size=(6, 300)) + 1.5 * truth
    hits = 0.0
    for target in range(6):
        rest = np.arange(6) != target
        s, t = scores[rest].ravel(), truth[rest].ravel()
        gains = {cut: (s[t] >= cut).mean() - (s[~t] >= cut).mean() for cut in s}
        passed = scores[target] >= max(gains, key=gains.__getitem__)
        mine = truth[target]
        hits += (passed & mine).sum() / truth.sum() + (~passed & ~mine).sum() / (~truth).sum()
    found = transferred_accuracy(torch.from_numpy(scores), torch.from_numpy(truth))
    assert found == pytest.approx(hits / 2)
    # A model whose answers are shifted loses what the hindsight threshold would have kept.
    scores[0] += 10
    assert transferred_accuracy(torch.from_numpy(scores), torch.from_numpy(truth)) < found - 0.02
