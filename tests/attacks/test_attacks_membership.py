"""Each family against its definition, written out slowly and independently."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_ndtr
from scipy.stats import norm
from scipy.stats import t as student

from attacks import overfitted
from edgeward.attacks import ATTACKS, Points, Signals
from edgeward.attacks.membership.audit import leave_one_out, recorded_oracle
from edgeward.attacks.membership.bavaria import predictive
from edgeward.attacks.membership.lira import LiRA
from edgeward.attacks.membership.moments import Moments
from edgeward.attacks.membership.rmia import RMIA, beaten
from edgeward.attacks.membership.threshold import class_thresholds
from edgeward.attacks.metrics import Curve, auc
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed

MODELS = 8


@pytest.fixture(scope="module")
def toy():
    return overfitted.signals(Seed(11), models=MODELS, points=60, population=80)[0]


def gaussian_signals(shift, sigma, models, points, seed):
    """Two classes whose logit-scaled confidence is N(mu_i + shift * member, sigma^2) with a difficulty mu_i."""
    generator = seed.torch()
    keep = overfitted.balanced_keep(models, points, seed.child("keep"))
    difficulty = 3 * torch.randn(points, generator=generator).double()
    phi = difficulty + shift * keep + sigma * torch.randn(models, points, generator=generator).double()
    logits = torch.stack([phi, torch.zeros_like(phi)], dim=-1)
    labels = torch.zeros(points, dtype=torch.long)
    return Signals(logits, labels, keep, torch.zeros(models, 5, 2).double(), torch.zeros(5, dtype=torch.long)), phi


def softmax_of_label(logits, labels, temperature):
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    p = np.exp(scaled - scaled.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.take_along_axis(p, np.broadcast_to(labels[:, None], (*p.shape[:-1], 1)), -1)[..., 0]


finite = st.floats(-5, 5)
grid = st.integers(-6, 6).map(float)


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.one_of(finite, grid)),
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.one_of(finite, grid)),
    st.sampled_from([0.5, 1.0, 2.0, math.e]),
)
def test_sort_and_search_is_all_pairs(x, z, gamma):
    dense = ((x - math.log(gamma))[:, None] > z[None, :]).mean(1)
    assert np.array_equal(beaten(torch.from_numpy(x), torch.from_numpy(z), gamma).numpy(), dense)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_rmia_is_the_dense_definition(mode, gamma, toy):
    attack = RMIA(mode=mode, gamma=gamma, a=0.3, temperature=2.0)
    found = leave_one_out(toy, attack).numpy()
    labels, z_labels = toy.labels.numpy(), toy.reference_labels.numpy()
    p_x = softmax_of_label(toy.logits.numpy(), labels, 2.0)
    p_z = softmax_of_label(toy.reference_logits.numpy(), z_labels, 2.0)
    keep = toy.keep.numpy()
    for t in range(MODELS):
        others = [(t + k) % MODELS for k in range(1, MODELS)]
        prior_z = p_z[others].mean(0)
        for i in range(60):
            inside = [k for k in others if keep[k, i]][: MODELS // 2 - 1]
            outside = [k for k in others if not keep[k, i]][: MODELS // 2 - 1]
            if mode == "online":
                prior_x, of_z = p_x[inside + outside, i].mean(), prior_z
            else:
                prior_x, of_z = (1.3 * p_x[outside, i].mean() + 0.7) / 2, (1.3 * prior_z + 0.7) / 2
            ratios = (p_x[t, i] / prior_x) / (p_z[t] / of_z)
            assert found[t, i] == np.count_nonzero(ratios > gamma) / 80


def test_rmia_refuses_settings_outside_its_definition():
    with pytest.raises(ConfigError, match="gamma = -1"):
        RMIA(gamma=-1.0)


@pytest.mark.parametrize("variance", ["fixed", "record"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_lira_is_the_likelihood_ratio_of_its_algorithm(mode, variance, toy):
    found = leave_one_out(toy, LiRA(mode=mode, variance=variance)).numpy()
    p = softmax_of_label(toy.logits.numpy(), toy.labels.numpy(), 1.0)
    phi, keep = np.log(p) - np.log1p(-p), toy.keep.numpy()
    half = MODELS // 2 - 1
    for t in range(MODELS):
        others = [(t + k) % MODELS for k in range(1, MODELS)]
        sides = []
        for wanted in (True, False):
            rows = np.stack([phi[[k for k in others if keep[k, i] == wanted][:half], i] for i in range(60)], axis=1)
            own = rows.std(0)
            pooled = np.sqrt(((rows - rows.mean(0)) ** 2).sum() / (60 * (half - 1)))
            sides.append((rows.mean(0), own if variance == "record" else pooled))
        (mu_in, s_in), (mu_out, s_out) = sides
        if mode == "online":
            expected = norm.logpdf(phi[t], mu_in, s_in) - norm.logpdf(phi[t], mu_out, s_out)
            np.testing.assert_allclose(found[t], expected, rtol=1e-5, atol=1e-5)
        else:
            log_cdf = log_ndtr((phi[t] - mu_out) / s_out)
            distinct = np.diff(np.sort(log_cdf)) > 1e-12
            order = np.argsort(log_cdf)
            assert (np.diff(found[t][order])[distinct] > 0).all()


@pytest.mark.parametrize("variance", ["fixed", "record"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_public_lira_is_the_scripts_formula(mode, variance, toy):
    found = leave_one_out(toy, LiRA(mode=mode, variance=variance, form="public")).numpy()
    p = softmax_of_label(toy.logits.numpy(), toy.labels.numpy(), 1.0)
    phi, keep = np.log(p + 1e-45) - np.log(1 - p + 1e-45), toy.keep.numpy()
    half = MODELS // 2 - 1
    for t in range(MODELS):
        others = [(t + k) % MODELS for k in range(1, MODELS)]
        seen, unseen = (
            np.stack([phi[[k for k in others if keep[k, i] == wanted][:half], i] for i in range(60)])
            for wanted in (True, False)
        )
        if variance == "record":
            s_in, s_out = seen.std(1), unseen.std(1)
        else:
            s_in = s_out = seen.std() if mode == "online" else unseen.std()
        expected = -norm.logpdf(phi[t], np.median(unseen, 1), s_out)
        if mode == "online":
            expected += norm.logpdf(phi[t], np.median(seen, 1), s_in)
        np.testing.assert_allclose(found[t], expected, rtol=1e-6, atol=1e-6)


def test_public_lira_takes_as_many_models_as_the_rarest_point_has():
    # Point 0 is in two of six models, the others in three: every point's first two count, on either side.
    generator = Seed(28).torch()
    keep = overfitted.balanced_keep(7, 12, Seed(29))
    keep[:, 0] = torch.arange(7) < 2
    logits = torch.randn(7, 12, 3, generator=generator)
    labels = torch.randint(0, 3, (12,), generator=generator)
    signals = Signals(logits, labels, keep, torch.zeros(7, 4, 3), torch.zeros(4, dtype=torch.long))
    rule = LiRA(mode="offline", form="public").rule(signals.knowledge())
    found = rule(recorded_oracle(signals, 0, "confidence"), Points.recorded(12, 4)).numpy()
    p = softmax_of_label(logits.numpy(), labels.numpy(), 1.0)
    phi = np.log(p) - np.log1p(-p)
    unseen = np.stack([phi[[k for k in range(7) if not keep[k, i]][:2], i] for i in range(12)])
    expected = -norm.logpdf(phi[0], np.median(unseen, 1), unseen.std())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_lira_reaches_the_closed_form_on_gaussians():
    # The optimal test of N(0, s^2) against N(d, s^2) has AUC Phi(d / (sqrt 2 s)); fitting the means costs O(1/S).
    shift, sigma = 1.5, 1.0
    signals, _ = gaussian_signals(shift, sigma, 128, 400, Seed(21))
    expected = float(norm.cdf(shift / (math.sqrt(2) * sigma)))
    for name in ("lira-online", "bavaria"):
        assert auc(leave_one_out(signals, ATTACKS[name]), signals.keep).value == pytest.approx(expected, abs=0.01)
    offline = auc(leave_one_out(signals, LiRA(mode="offline")), signals.keep).value
    assert offline == pytest.approx(expected, abs=0.015)
    # A global threshold drowns in the points' difficulty: AUC Phi(d / sqrt(2 (s^2 + 3^2))).
    pooled = auc(leave_one_out(signals, ATTACKS["logit"]), signals.keep).value
    assert pooled == pytest.approx(float(norm.cdf(shift / math.sqrt(2 * (sigma**2 + 9)))), abs=0.03)


def test_bavaria_beats_per_record_variance_with_few_shadows():
    signals, _ = gaussian_signals(1.5, 1.0, 8, 600, Seed(22))
    area = {n: auc(leave_one_out(signals, ATTACKS[n]), signals.keep).value for n in ("bavaria", "lira-online-record")}
    assert area["bavaria"] > area["lira-online-record"] + 0.03


def test_student_t_predictive_is_the_textbook_posterior():
    generator = Seed(23).torch()
    shared = 5 * torch.randn(4000, generator=generator).double()
    values = shared + 2 * torch.randn(6, 4000, generator=generator).double()
    moments = Moments.of(values, torch.ones_like(values, dtype=torch.bool))
    unrelated = torch.randn(6, 4000, generator=generator).double()
    found = predictive(moments, Moments.of(unrelated, torch.ones_like(values, dtype=torch.bool)))
    at, phi = torch.arange(4000), torch.linspace(-8, 8, 4000).double()
    expected = student.logpdf(phi.numpy(), found.freedom.numpy(), found.centre.numpy(), found.scale.numpy())
    np.testing.assert_allclose(found.log_density(phi, at).numpy(), expected, rtol=1e-10)
    # Shrinkage of the mean by n / (n + kappa), kappa = 4 / 25; variances that differ by sampling noise alone pool.
    offset = moments.mean - moments.mean.mean()
    weight = float((found.centre - moments.mean.mean()) @ offset / (offset @ offset))
    assert weight == pytest.approx(6 / (6 + 4 / 25), rel=0.005)
    assert float(found.freedom.min()) > 30
    assert float(found.scale.mean()) == pytest.approx(2 * math.sqrt(1 + 1 / (6 + 4 / 25)), rel=0.02)


def test_predictive_borrows_from_the_other_side():
    # Two observations per side, and a difficulty shared by both: the other side's mean must improve the estimate.
    generator = Seed(27).torch()
    difficulty = 3 * torch.randn(2000, generator=generator).double()
    everyone = torch.ones(2, 2000, dtype=torch.bool)
    mine, theirs, noise = (Moments.of(torch.randn(2, 2000, generator=generator).double(), everyone) for _ in range(3))
    own = Moments(mine.count, mine.mean + difficulty, mine.spread)
    other = Moments(theirs.count, theirs.mean + difficulty - 1, theirs.spread)
    error = {
        name: float((predictive(own, side).centre - difficulty).square().mean())
        for name, side in (("other", other), ("noise", noise))
    }
    # With x = d - 1 + e: the variance of d given both is 1 / (1/9 + 2 + 2) against 1 / (1/9 + 2).
    assert error["other"] == pytest.approx(1 / (1 / 9 + 4), rel=0.1)
    assert error["noise"] == pytest.approx(1 / (1 / 9 + 2), rel=0.1)


def test_gap_attack_is_half_plus_half_the_gap(toy):
    scores = leave_one_out(toy, ATTACKS["gap"])
    right = (toy.logits.argmax(-1) == toy.labels).double()
    gap = float(right[toy.keep].mean() - right[~toy.keep].mean())
    assert gap > 0.3
    assert Curve.of(scores, toy.keep).balanced_accuracy() == pytest.approx(0.5 + gap / 2, abs=1e-12)
    assert auc(scores, toy.keep).value == pytest.approx(0.5 + gap / 2, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_class_thresholds_are_the_best_cuts(rows):
    values = torch.tensor([r[0] for r in rows]).double()
    labels = torch.tensor([r[1] for r in rows])
    inside = torch.tensor([r[2] for r in rows])
    found = class_thresholds(values, labels, inside, 5)

    def best(mine):
        v, i = values[mine], inside[mine]

        def gain(cut):
            passed = v >= cut
            return int((passed & i).sum()) / max(1, int(i.sum())) - int((passed & ~i).sum()) / max(1, int((~i).sum()))

        gains = {cut: gain(cut) for cut in set(v.tolist())}
        top = max(gains.values())
        return max(cut for cut, value in gains.items() if value >= top - 1e-9)

    everyone = torch.ones_like(inside)
    for c in range(5):
        mine = labels == c
        assert float(found[c]) == best(mine if bool(mine.any()) else everyone)


def test_per_class_thresholds_help_when_classes_differ():
    generator = Seed(24).torch()
    keep = overfitted.balanced_keep(8, 400, Seed(25))
    labels = torch.arange(400) % 4
    phi = 4.0 * labels + 2.0 * keep + torch.randn(8, 400, generator=generator)
    logits = torch.zeros(8, 400, 4).scatter(2, labels.expand(8, -1)[..., None], phi[..., None])
    signals = Signals(logits, labels, keep, torch.zeros(8, 5, 4), torch.zeros(5, dtype=torch.long))
    area = {n: auc(leave_one_out(signals, ATTACKS[n]), keep).value for n in ("logit", "logit-per-class")}
    assert area["logit-per-class"] > 0.9 > area["logit"] + 0.15


def test_label_ratio_sees_what_correctness_cannot():
    # Half the points are always right, half right only when trained on: correctness alone mixes them up.
    keep = overfitted.balanced_keep(12, 100, Seed(26))
    right = keep | (torch.arange(100) < 50)
    logits = torch.stack([right.double(), 0.5 * torch.ones(12, 100).double()], dim=-1)
    labels = torch.zeros(100, dtype=torch.long)
    signals = Signals(logits, labels, keep, torch.zeros(12, 5, 2).double(), torch.zeros(5, dtype=torch.long))
    gap = Curve.of(leave_one_out(signals, ATTACKS["gap"], access="label"), keep)
    ratio = Curve.of(leave_one_out(signals, ATTACKS["label-ratio"], access="label"), keep)
    assert gap.tpr_at(0.01).value == pytest.approx(0.02)
    assert ratio.tpr_at(0.01).value == pytest.approx(0.5, abs=0.02)
