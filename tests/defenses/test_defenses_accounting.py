"""What is said to be spent is an upper bound, near the best known one, whatever is asked, in little time and memory."""

import math
import re
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.defenses import DpSgd
from edgeward.defenses.accounting import Spent, spent, unsampled_epsilon
from edgeward.defenses.clipping import Clipped
from edgeward.defenses.dp_sgd import drawn_rate
from edgeward.defenses.loss_distribution import loss_distribution_epsilon
from edgeward.defenses.renyi import _FAR, SampledGaussian, _far_apart, _integrated, renyi_epsilon
from edgeward.recipes import DpSgdTraining
from edgeward.train import CrossEntropy, Population, Schedule, fit
from edgeward.train.task import Task
from train.train_toys import blobs, context, linear

# dp-accounting 0.6: (noise, records, batch, epochs, delta, privacy loss distribution, Rényi).
PUBLISHED = [
    (0.01, 500, 100, 1, 2e-4, 24920.70, 27493.30),
    (0.05, 500, 100, 100, 2e-4, 26302.22, 101229.91),
    (0.2, 1000, 10, 60, 1e-4, None, 936.08),
    (4.0, 750_000, 250, 3, 1.1e-18, None, 0.1473466),
    (1.0, 500, 100, 3, 0.5, 0.0, None),
]


def asked(noise, records, batch, epochs, delta):
    steps = math.ceil(records / batch)
    return SampledGaussian(noise, 1 / steps, epochs * steps), delta


@pytest.mark.parametrize(("noise", "records", "batch", "epochs", "delta", "least", "most"), PUBLISHED)
def test_published_figures_enclose_it(noise, records, batch, epochs, delta, least, most):
    found = spent(*asked(noise, records, batch, epochs, delta))
    assert found.epsilon >= (0 if least is None else least)
    assert found.epsilon <= (0.001 if most is None else most)


mechanisms = st.builds(
    SampledGaussian,
    st.floats(-3, 3).map(lambda power: 10**power),
    st.one_of(st.just(1.0), st.floats(-7, 0).map(lambda power: 10**power)),
    st.floats(0, 6).map(lambda power: round(10**power)),
)
deltas = st.floats(-18, math.log10(0.5)).map(lambda power: 10**power)
properties = settings(max_examples=20, deadline=None)


@properties
@given(mechanisms, deltas)
def test_it_is_finite_not_negative_and_never_above_any_accountant(mechanism, delta):
    found = spent(mechanism, delta)
    assert 0 <= found.epsilon < math.inf
    assert found.epsilon <= renyi_epsilon(mechanism, delta)
    assert found.epsilon <= unsampled_epsilon(mechanism, delta)


@properties
@given(mechanisms, deltas, st.sampled_from(["noise", "steps", "rate", "delta"]), st.floats(1.01, 3))
def test_more_noise_less_training_and_a_larger_delta_never_spend_more(mechanism, delta, what, factor):
    noise, rate, steps = mechanism.noise, mechanism.rate, mechanism.steps
    easier = {
        "noise": (SampledGaussian(noise * factor, rate, steps), delta),
        "steps": (SampledGaussian(noise, rate, max(1, int(steps / factor))), delta),
        "rate": (SampledGaussian(noise, rate / factor, steps), delta),
        "delta": (mechanism, min(0.9, delta * factor)),
    }[what]
    before = spent(mechanism, delta).epsilon
    # The grid's own error, stated and added, is 0.01 at least and may grow as the grid gets coarser.
    assert spent(*easier).epsilon <= before * 1.001 + 2e-3


@settings(properties, max_examples=8)
@given(st.floats(-1, 1.5).map(lambda p: 10**p), st.integers(1, 30), st.integers(1, 40), st.floats(-9, -2))
def test_it_is_not_below_what_one_attack_gets(noise, batches, epochs, power):
    """The test of the sum of the steps' outputs needs an epsilon that the true one must reach.

    Sums of steps: without the record N(0, T s^2), with it N(k, T s^2) with k of them drawn, k ~ Bin(T, q).
    """
    from scipy.stats import binom, norm

    mechanism, delta = SampledGaussian(noise, 1 / batches, batches * epochs), 10**power
    found = spent(mechanism, delta).epsilon
    drawn = np.arange(mechanism.steps + 1)
    chances = binom.pmf(drawn, mechanism.steps, mechanism.rate)
    spread = noise * math.sqrt(mechanism.steps)
    reachable = 0.0
    for threshold in np.linspace(0, drawn[-1], 60):
        hit = float(chances @ norm.sf((threshold - drawn) / spread))
        false = float(norm.logsf(threshold / spread))
        if hit > delta * (1 + 1e-9) + 1e-13:
            reachable = max(reachable, math.log(hit - delta) - false)
    assert found >= reachable * (1 - 1e-9) - 1e-9


EXTREMES = [
    SampledGaussian(noise, rate, steps)
    for noise in (1e-3, 0.3, 1.0, 1e3)
    for rate, steps in ((1.0, 10**6), (0.5, 10**6), (1e-3, 10**6), (1e-7, 1))
]


@pytest.mark.parametrize("delta", [1e-18, 1e-5, 0.5])
def test_extreme_questions_are_answered_in_bounded_time(delta):
    for mechanism in EXTREMES:
        start = time.process_time()
        assert 0 <= spent(mechanism, delta).epsilon < math.inf
        assert time.process_time() - start < 20


@pytest.mark.parametrize("mechanism", [SampledGaussian(0.5, 0.01, 3000), SampledGaussian(0.05, 0.2, 500)])
def test_memory_is_bounded_where_the_grid_is_largest(mechanism):
    spent.cache_clear()
    tracemalloc.start()
    spent(mechanism, 1e-5)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 300e6


@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1 - 1e-16])
@pytest.mark.parametrize("noise", [1e-100, 1e-3, 1e100])
@pytest.mark.parametrize("rate", [1.0, 0.3, 2.0**-24])
def test_the_ends_of_floating_point_are_answered_too(noise, rate, delta):
    assert 0 <= spent(SampledGaussian(noise, rate, 7), delta).epsilon < math.inf


@pytest.mark.parametrize(("noise", "rate", "orders"), [(0.7, 0.2, (2, 3, 8)), (4.0, 0.01, (2, 40)), (0.05, 0.3, (2,))])
def test_whole_moments_are_those_of_opacus(noise, rate, orders):
    from opacus.accountants.analysis.rdp import compute_rdp

    from edgeward.defenses.renyi import _log_moments

    mine = _log_moments(1 / noise, rate, np.array(orders, float)) / (np.array(orders) - 1)
    np.testing.assert_allclose(mine, compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders), rtol=1e-9)


@pytest.mark.parametrize(
    ("noise", "rate", "order"), [(1.0, 0.1, 1.5), (0.5, 0.3, 2.5), (3.0, 0.02, 7.3), (0.2, 0.4, 1.1)]
)
def test_moments_between_are_the_integral(noise, rate, order):
    from scipy.integrate import quad

    def integrand(z):
        ratio = 1 - rate + rate * math.exp((2 * z - 1) / (2 * noise**2))
        return math.exp(-z * z / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi)) * ratio**order

    right, _ = quad(integrand, -15 * noise, order + 15 * noise, points=[0.0, 0.5, 1.0, order], limit=400)
    assert _integrated(1 / noise, rate, order) == pytest.approx(math.log(right), rel=1e-6)


@pytest.mark.parametrize("rate", [1e-7, 0.01, 0.5, 0.999])
def test_the_closed_form_for_low_noise_is_just_above_the_integral(rate):
    orders = np.array([1.001, 1.1, 1.5, 1.99])
    exact = np.array([_integrated(_FAR, rate, order) for order in orders])
    bound = _far_apart(_FAR, rate, orders)
    assert (bound >= exact - 1e-12).all()
    np.testing.assert_allclose(bound, exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("noise", [0.8, 1.0, 3.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_one_step_that_sees_all_is_the_analytic_gaussian(noise, delta):
    """By quadrature of max(0, p - e^epsilon q) at the epsilon that was found."""
    epsilon = spent(SampledGaussian(noise, 1.0, 1), delta).epsilon
    z = np.linspace(-20 * noise, 1 + 20 * noise, 2_000_001)
    p, q = (np.exp(-((z - mean) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi)) for mean in (1, 0))
    assert np.trapezoid(np.maximum(0, p - math.exp(epsilon) * q), z) == pytest.approx(delta, rel=1e-6)


def test_a_grid_that_would_be_too_large_is_not_built():
    asked_for = [(SampledGaussian(0.05, 0.2, 500), 2e-4), (SampledGaussian(1.0, 0.1, 100), 1e-18)]
    assert [loss_distribution_epsilon(*each) for each in asked_for] == [None, None]
    assert loss_distribution_epsilon(SampledGaussian(1.0, 0.1, 100), 1e-5) is not None


@pytest.mark.parametrize("noise", [1e-200, 5e-324])
def test_what_no_accountant_can_say_is_refused_before_training(noise):
    x, y = blobs(20)
    made = context(linear, x, y, torch.ones(1, 20, dtype=torch.bool), Schedule(epochs=1, batch=10))
    start = Population.initialise(linear, made.seeds)
    trained = start.clone()
    with pytest.raises(ConfigError, match="so little noise"):
        fit(trained, made, [CrossEntropy(), DpSgd(noise)])
    assert all(torch.equal(tensor, start.params[name]) for name, tensor in trained.params.items())


class Log(Watcher):
    """Remembers in which order it was told."""

    def __init__(self):
        self.told = []

    def step(self, task, done, total, note=""):
        self.told.append("step")

    def event(self, name, fields):
        self.told.append((name, fields))


def test_the_recipe_foresees_what_it_then_states():
    x, y = blobs(30)
    log = Log()
    members = torch.ones(2, 30, dtype=torch.bool)
    members[1, 25:] = False
    task = Task(linear, x, y, members, 2, Seed(0), Schedule(batch=10), watcher=log)
    trained = DpSgdTraining(epochs=1).run(task)
    (name, fields), *later = log.told
    assert (name, "step" in later) == ("foreseen", True)
    (claim,) = trained.claims
    assert float(re.search(r"\) = \((\S+),", claim.statement)[1]) == pytest.approx(fields["epsilon"], abs=0.005)
    assert f"an upper bound; accountant: {fields['accountant']}" in claim.evidence


@pytest.mark.parametrize("delta", [None, 1e-4])
def test_what_is_stated_is_spent_by_the_model_that_ships(delta):
    """Audited siblings have fewer records, hence a higher rate and another delta; they are not released."""
    x, y = blobs(30)
    members = torch.ones(3, 30, dtype=torch.bool)
    members[0, 9:] = members[1, 15:] = members[2, 25:] = False
    made = context(linear, x, y, members, Schedule(epochs=2, batch=10))
    part = DpSgd(1.0, delta=delta)
    found = part.spent(made)
    assert (found.epsilon, found.delta) == part.epsilon(25, made)
    assert found.epsilon < part.epsilon(9, made)[0]
    (claim,) = part.statement(made)
    assert f"({found.epsilon:.2f}, {found.delta:.1e})-DP" in claim.statement


@pytest.mark.parametrize("batches", [3, 49, 93, 99, 105])
def test_the_loop_takes_the_steps_and_the_rate_that_are_accounted(batches, monkeypatch):
    """1 / (1 / 93) is just below 93."""
    seen = []
    monkeypatch.setattr(Clipped, "step", lambda clipped, x, losses, classes: seen.append(len(x)))
    counted = []

    def said(mechanism, delta):
        counted.append(mechanism)
        return Spent(1.0, delta, "none")

    monkeypatch.setattr("edgeward.defenses.dp_sgd.spent", said)
    x, y = blobs(batches * 2)
    made = context(linear, x, y, torch.ones(1, len(x), dtype=torch.bool), Schedule(epochs=2, batch=2))
    DpSgd().spent(made)
    fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), DpSgd()])
    assert {one.steps for one in counted} == {len(seen)} == {2 * batches}
    assert 0 <= counted[0].rate - 1 / batches < 2.0**-24


@pytest.mark.parametrize("batches", [1, 3, 1000, 2**24, 2**26])
def test_the_rate_counts_the_draws_of_24_bits(batches):
    """A float32 of torch.rand is a multiple of 2^-24: so many of them are below 1 / batches."""
    below = (torch.arange(0, min(2**24, 2**25 // batches + 2)) / 2**24 < 1 / batches).sum()
    assert drawn_rate(batches) * 2**24 == int(below)
