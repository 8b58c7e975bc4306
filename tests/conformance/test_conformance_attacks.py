"""Every registered attack: power on over-fitted models, chance on unrelated ones, and no reading beyond its access."""

import numpy as np
import pytest
import torch

from attacks import overfitted
from edgeward.attacks import ATTACKS, Oracle, Points, Signals
from edgeward.attacks.membership.audit import leave_one_out, recorded_oracle
from edgeward.attacks.metrics import auc
from edgeward.attacks.oracle import offers
from edgeward.core.errors import AccessViolation
from edgeward.core.randomness import Seed

NAMES = list(ATTACKS)


@pytest.fixture(scope="module")
def toy():
    return overfitted.signals(Seed(1), models=8)


@pytest.fixture(scope="module")
def unrelated():
    return overfitted.signals(Seed(2), models=16, points=200, independent=True)[0]


def scores_of(name, signals):
    return leave_one_out(signals, ATTACKS[name])


@pytest.mark.parametrize("name", NAMES)
def test_floor_on_over_fitted_models(name, toy):
    signals = toy[0]
    assert auc(scores_of(name, signals), signals.keep).value > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_chance_on_models_that_saw_none_of_the_points(name, unrelated):
    # 1,600 member and 1,600 non-member trials: one standard error of the AUC is 0.010.
    assert abs(auc(scores_of(name, unrelated), unrelated.keep).value - 0.5) < 0.035


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("models", [4, 6])
def test_balanced_membership_itself_gives_nothing_away(name, models):
    # Constant answers: anything but equal scores would be read off the siblings' membership counts.
    generator = Seed(3).torch()
    keep = overfitted.balanced_keep(models, 40, Seed(4))
    labels = torch.randint(0, 3, (40,), generator=generator)
    same = torch.randn(1, 40, 3, generator=generator).expand(models, -1, -1)
    z = torch.randn(1, 30, 3, generator=generator).expand(models, -1, -1)
    signals = Signals(same, labels, keep, z, torch.zeros(30, dtype=torch.long))
    scores = scores_of(name, signals)
    per_point = scores.amax(0) - scores.amin(0)
    if not name.endswith("per-class"):  # class thresholds are observed values, and every model here has the same
        assert float(per_point.max()) < 1e-9
    assert auc(scores, keep).value == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_swapping_members_and_non_members_mirrors_the_area(name, toy):
    scores, keep = scores_of(name, toy[0]), toy[0].keep
    assert auc(scores, ~keep).value == pytest.approx(1 - auc(scores, keep).value, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("access", ["label", "confidence"])
def test_no_access_beyond_the_declared(name, access, toy):
    signals, attack = toy[0], ATTACKS[name]
    fitted = attack.fit(signals.knowledge(0))
    points = Points.recorded(signals.logits.shape[1], signals.reference_logits.shape[1])
    oracle = recorded_oracle(signals, 0, access)
    if offers(access, attack.access):
        assert fitted.score(oracle, points).shape == (120,)
        assert oracle.queries in (120, 120 + 300)
    else:
        with pytest.raises(AccessViolation, match="confidence"):
            fitted.score(oracle, points)
        assert oracle.queries == 0


@pytest.mark.parametrize("name", NAMES)
def test_declared_access_suffices_and_is_all_that_is_read(name, toy):
    # The rule itself, without the check in front of it, must live within the declared access.
    signals, attack = toy[0], ATTACKS[name]
    rule = attack.fit(signals.knowledge(0)).rule
    points = Points.recorded(signals.logits.shape[1], signals.reference_logits.shape[1])
    assert rule(recorded_oracle(signals, 0, attack.access), points).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_targets_row_of_the_signals_is_never_read(name, toy):
    signals = toy[0]
    points = Points.recorded(signals.logits.shape[1], signals.reference_logits.shape[1])
    logits, reference, keep = signals.logits.clone(), signals.reference_logits.clone(), signals.keep.clone()
    logits[0], reference[0], keep[0] = -logits[0], -reference[0], ~keep[0]
    forged = Signals(logits, signals.labels, keep, reference, signals.reference_labels)
    oracle = recorded_oracle(signals, 0, "confidence")
    honest = ATTACKS[name].fit(signals.knowledge(0)).score(oracle, points)
    assert torch.equal(ATTACKS[name].fit(forged.knowledge(0)).score(oracle, points), honest)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_signals_give_the_same_scores(name, toy):
    first = scores_of(name, toy[0])
    again = Signals(*(getattr(toy[0], f) for f in ("logits", "labels", "keep", "reference_logits", "reference_labels")))
    assert torch.equal(first, scores_of(name, again))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_points_and_population_does_not_matter(name, toy):
    signals, _, x, z = toy
    order = torch.randperm(len(x), generator=Seed(5).torch())
    mixed = torch.randperm(len(z), generator=Seed(6).torch())
    moved = Signals(
        signals.logits[:, order],
        signals.labels[order],
        signals.keep[:, order],
        signals.reference_logits[:, mixed],
        signals.reference_labels[mixed],
    )
    torch.testing.assert_close(scores_of(name, moved), scores_of(name, signals)[:, order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_live_records_score_as_recorded_logits(name, toy):
    signals, run, x, z = toy
    fitted = ATTACKS[name].fit(signals.knowledge(0))
    recorded = fitted.score(recorded_oracle(signals, 0, "confidence"), Points.recorded(len(x), len(z)))
    chosen = torch.tensor([7, 3, 50])
    live = Oracle(lambda records: run(torch.from_numpy(records))[0].numpy(), "confidence")
    points = Points(x[chosen].numpy(), chosen, z.numpy())
    torch.testing.assert_close(fitted.score(live, points), recorded[chosen], rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_saturated_and_impossible_classes_give_finite_scores(name):
    generator = Seed(7).torch()
    keep = overfitted.balanced_keep(6, 30, Seed(8))
    labels = torch.randint(0, 4, (30,), generator=generator)
    logits = torch.randn(6, 30, 4, generator=generator) * 400
    logits[:, :, 3] = -np.inf
    z = torch.zeros(6, 20, 4)
    signals = Signals(logits, labels, keep, z, torch.arange(20) % 4)
    assert scores_of(name, signals).isfinite().all()
