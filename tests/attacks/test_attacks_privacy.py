"""Differential-privacy bounds against randomised response, whose epsilon and rates are known exactly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeward.attacks.privacy import dp_tpr_bound, epsilon_lower_bound, negatives_needed, resolution_note
from edgeward.core.errors import ConfigError
from edgeward.core.interval import Estimate
from edgeward.core.randomness import Seed


def response(epsilon, trials, seed):
    """Randomised response: tells the truth with probability e^eps / (1 + e^eps); optimal and exactly epsilon-DP."""
    generator = np.random.default_rng(seed)
    truth = generator.random(trials) < 0.5
    lie = generator.random(trials) > math.exp(epsilon) / (1 + math.exp(epsilon))
    return torch.from_numpy((truth ^ lie).astype(float)), torch.from_numpy(truth)


@given(st.floats(0, 12), st.floats(0, 0.5), st.floats(0, 1))
def test_bound_is_a_trade_off_curve(epsilon, delta, fpr):
    bound = dp_tpr_bound(epsilon, delta, fpr)
    assert max(0.0, fpr - 1e-9) <= bound <= 1
    assert dp_tpr_bound(epsilon + 0.5, delta, fpr) >= bound - 1e-12
    # Swapping the roles of the two hypotheses leaves the region where it is.
    assert dp_tpr_bound(epsilon, delta, 1 - bound) >= 1 - fpr - 1e-7


def test_randomised_response_meets_the_bound_exactly():
    for epsilon in (0.5, 1.0, 3.0):
        fpr = 1 / (1 + math.exp(epsilon))
        assert dp_tpr_bound(epsilon, 0.0, fpr) == pytest.approx(1 - fpr, abs=1e-12)


def test_extremes():
    assert dp_tpr_bound(0.0, 0.0, 0.01) == pytest.approx(0.01)
    assert dp_tpr_bound(1e6, 0.0, 0.01) == 1.0
    assert dp_tpr_bound(2.3, 0.0, 0.001) == pytest.approx(0.00997, abs=1e-5)
    with pytest.raises(ConfigError, match="out of range"):
        dp_tpr_bound(-1.0, 0.0, 0.5)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_lower_bound_stays_below_the_truth_and_comes_near(epsilon):
    found = [epsilon_lower_bound(*response(epsilon, 4000, seed)) for seed in range(60)]
    assert sum(value > epsilon for value in found) <= 6
    assert np.median(found) > 0.8 * epsilon


def test_lower_bound_of_chance_is_rarely_positive():
    found = [epsilon_lower_bound(*response(0.0, 400, seed)) for seed in range(100)]
    assert sum(value > 0 for value in found) <= 8


def test_choosing_among_many_thresholds_costs_no_confidence():
    # Chance with 400 distinct scores: picking the best threshold in hindsight would claim far more than 5 %.
    truth = torch.arange(400) % 2 == 0
    generator = Seed(6).torch()
    found = [epsilon_lower_bound(torch.randn(400, generator=generator).double(), truth) for _ in range(100)]
    assert sum(value > 0 for value in found) <= 10


def test_threshold_comes_from_one_half_and_the_counts_from_the_other():
    truth = torch.arange(300) % 2 == 0
    scores = torch.randn(300, generator=Seed(7).torch()).double() + 1.5 * truth
    order = torch.randperm(300, generator=Seed(8).torch())

    def bounds(half, threshold):
        passed, member = scores[half] >= threshold, truth[half]
        tp, fp, m = int((passed & member).sum()), int((passed & ~member).sum()), int(member.sum())
        rates = [(tp, m, fp, len(half) - m), (len(half) - m - fp, len(half) - m, m - tp, m)]
        return [
            math.log(max(Estimate.proportion(a, b).low, 1e-300) / Estimate.proportion(c, d).high)
            for a, b, c, d in rates
        ]

    first, second = order[:150], order[150:]
    table = {(t, side): bounds(first, t)[side] for t in scores[first].tolist() for side in (0, 1)}
    threshold, side = max(table, key=table.__getitem__)
    expected = max(0.0, bounds(second, threshold)[side])
    assert expected > 0
    assert epsilon_lower_bound(scores, truth, seed=Seed(8)) == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(table[threshold, side], rel=1e-3)


def test_lower_bound_reaches_its_stated_ceiling():
    truth = torch.arange(2000) % 2 == 0
    found = epsilon_lower_bound(truth.double(), truth, seed=Seed(5))
    assert found == pytest.approx(math.log(1000 / 7.4), abs=0.1)
    assert epsilon_lower_bound(truth.double(), truth, delta=0.01, seed=Seed(5)) < found


def test_reversed_scores_and_tiny_samples_say_nothing():
    truth = torch.arange(100) % 2 == 0
    assert epsilon_lower_bound((~truth).double(), truth) == 0.0
    assert epsilon_lower_bound(torch.zeros(100).double(), truth) == 0.0


def test_negatives_needed_and_its_note():
    assert negatives_needed(0.01) == 1000
    assert resolution_note(10_000, 0.001) is None
    assert "1600" in resolution_note(1600, 0.001)
