"""Signals, what an attacker gets of them, and the audit that runs every attack."""

import pytest
import torch

from attacks import overfitted
from edgeward.attacks import ATTACKS, Fitted, Knowledge, Points, Signals, audit
from edgeward.attacks.membership.audit import leave_one_out, per_record_risk, recorded_oracle
from edgeward.attacks.membership.base import BASE
from edgeward.attacks.membership.lira import LiRA
from edgeward.attacks.membership.rmia import RMIA
from edgeward.attacks.membership.threshold import Threshold
from edgeward.attacks.metrics import auc
from edgeward.core.errors import ConfigError, DataError, EdgewardError, ModelError
from edgeward.core.measurement import AttackResult
from edgeward.core.randomness import Seed


@pytest.fixture(scope="module")
def toy():
    return overfitted.signals(Seed(31), models=6, points=50, population=60)[0]


def parts(signals):
    return {
        n: getattr(signals, n).clone() for n in ("logits", "labels", "keep", "reference_logits", "reference_labels")
    }


def test_audit_is_sorted_complete_and_round_trips(toy):
    results = audit(toy)
    assert {r.name for r in results} == set(ATTACKS)
    strength = [(r.tpr_at_1pct.value, r.auc.value) for r in results]
    assert strength == sorted(strength, reverse=True)
    for r in results:
        assert (r.positives, r.negatives) == (150, 150)
        assert len(r.roc) <= 200
        assert r.adaptive
        assert r.kind == "mislabelled"
        assert AttackResult.from_json(r.to_json()) == r
    assert results == audit(toy)


def test_audit_always_holds_the_gap_attack(toy):
    assert [r.name for r in audit(toy, [])] == ["gap"]
    assert {r.name for r in audit(toy, [ATTACKS["loss"]], kind="population", adaptive=False)} == {"gap", "loss"}


def test_label_access_leaves_only_attacks_that_live_on_labels(toy):
    names = {r.name for r in audit(toy, access="label")}
    assert names == {name for name, attack in ATTACKS.items() if attack.access == "label"} == {"gap", "label-ratio"}


def test_degenerate_scores_are_chance(toy):
    flat = parts(toy)
    flat["logits"], flat["reference_logits"] = torch.zeros(6, 50, 5), torch.zeros(6, 60, 5)
    for result in audit(Signals(**flat)):
        assert result.auc.value == pytest.approx(0.5, abs=0.1), result.name
        assert result.tpr_at_1pct.value <= 0.1, result.name
    gap = audit(Signals(**flat), [])[0]
    assert (gap.auc.value, gap.balanced_accuracy) == (0.5, 0.5)
    assert gap.tpr_at_1pct.value <= 0.01


def test_three_siblings_are_too_few():
    keep = torch.tensor([[True, False], [False, True], [True, False], [False, True]])
    logits, zeros = torch.zeros(4, 2, 2), torch.zeros(2, dtype=torch.long)
    assert len(audit(Signals(logits, zeros, keep, logits, zeros), [])) == 1
    with pytest.raises(DataError, match="fewer than 2 of the 3"):
        Signals(logits[:3], zeros, keep[:3], logits[:3], zeros)


def test_all_problems_of_the_signals_come_in_one_error(toy):
    bad = parts(toy)
    bad["logits"][0, 3, 1] = float("nan")
    bad["labels"][2] = 9
    bad["reference_labels"][:3] = -1
    bad["keep"][:, 7] = True
    bad["keep"][5] = False
    with pytest.raises(DataError) as caught:
        Signals(**bad)
    text = str(caught.value)
    for part in ("logits: 1 rows", "labels: 1 outside 0..4", "reference_labels: 3 outside", "1 points", "1 models"):
        assert part in text


@pytest.mark.parametrize(
    ("name", "shape"), [("logits", (6, 50)), ("keep", (50, 6)), ("labels", (49,)), ("reference_logits", (6, 60, 4))]
)
def test_wrong_shapes_are_one_clear_error(toy, name, shape):
    bad = parts(toy)
    bad[name] = torch.zeros(shape).to(bad[name].dtype)
    with pytest.raises(DataError, match=r"expected"):
        Signals(**bad)


def test_membership_must_be_boolean(toy):
    bad = parts(toy)
    bad["keep"] = bad["keep"].long()
    with pytest.raises(DataError, match="not boolean"):
        Signals(**bad)


def test_labels_must_be_integers(toy):
    bad = parts(toy)
    bad["labels"] = bad["labels"].float()
    with pytest.raises(DataError, match="labels: expected integers"):
        Signals(**bad)


def test_digest_sees_every_bit(toy):
    digests = {toy.digest, Signals(**parts(toy)).digest}
    assert len(digests) == 1
    for name in parts(toy):
        changed = parts(toy)
        changed[name][..., 0] = changed[name][..., 1]
        assert changed[name].equal(getattr(toy, name)) or Signals(**changed).digest not in digests


def test_every_point_gets_as_many_in_as_out_models_whoever_is_attacked(toy):
    for target in range(6):
        knowledge = toy.knowledge(target)
        assert target not in knowledge.shadows.tolist()
        assert (knowledge.inside.sum(0) == 2).all()
        assert (knowledge.outside.sum(0) == 2).all()
        keep = toy.keep[knowledge.shadows]
        assert (knowledge.inside <= keep).all()
        assert not (knowledge.outside & keep).any()


def test_limit_caps_the_models_per_point(toy):
    knowledge = toy.knowledge(0, limit=3)
    assert (knowledge.inside.sum(0) == 1).all()
    assert (knowledge.outside.sum(0) == 1).all()
    assert len(audit(toy, limit=2)) == len(ATTACKS)
    with pytest.raises(ConfigError, match="limit"):
        toy.knowledge(0, limit=1)


def test_an_outside_target_is_attacked_with_all_models(toy):
    knowledge = toy.knowledge()
    assert isinstance(knowledge, Knowledge)
    assert knowledge.shadows.tolist() == list(range(6))
    assert (knowledge.inside.sum(0) == 3).all()


def test_more_shadow_models_help_the_attacker():
    signals = overfitted.signals(Seed(32), models=16, points=100, population=100)[0]
    few, many = (auc(leave_one_out(signals, ATTACKS["bavaria"], limit=k), signals.keep).value for k in (2, 14))
    assert many > few + 0.005


def test_per_record_risk_averages_to_the_area(toy):
    scores = leave_one_out(toy, ATTACKS["bavaria"])
    risk = per_record_risk(scores, toy.keep)
    assert float(risk.mean()) == pytest.approx(auc(scores, toy.keep).value, abs=1e-12)
    assert float(risk.min()) >= 0
    assert float(risk.max()) <= 1


def test_per_record_risk_finds_the_exposed_record():
    generator = Seed(33).torch()
    keep = overfitted.balanced_keep(8, 40, Seed(34))
    scores = torch.randn(8, 40, generator=generator).double()
    scores[:, 17] += 10 * keep[:, 17]
    risk = per_record_risk(scores, keep)
    assert int(risk.argmax()) == 17
    assert float(risk[17]) == 1.0


def test_points_must_be_those_of_the_signals(toy):
    fitted = ATTACKS["rmia-online"].fit(toy.knowledge(0))
    oracle, points = recorded_oracle(toy, 0, "confidence"), Points.recorded(50, 60)
    for bad in (Points(points.records, points.index + 1, points.population), Points.recorded(50, 59)):
        with pytest.raises(DataError, match="fitted for"):
            fitted.score(oracle, bad)
    with pytest.raises(DataError, match="do not match"):
        Points(points.records[:3], points.index, points.population)
    assert oracle.queries == 0


def test_two_settings_under_one_name_are_refused(toy):
    with pytest.raises(ConfigError, match="rmia-online"):
        audit(toy, [RMIA(), RMIA(gamma=1.0), RMIA(gamma=2.0)])


@pytest.mark.parametrize(
    ("attack", "field"),
    [(LiRA, "mode"), (LiRA, "variance"), (LiRA, "form"), (RMIA, "mode"), (BASE, "mode"), (Threshold, "statistic")],
)
def test_unknown_variants_are_refused(attack, field):
    # Past the type checker of the tests, as in a plain run.
    bad = attack()
    object.__setattr__(bad, field, "sideways")
    with pytest.raises(ConfigError, match="sideways"):
        bad.__post_init__()


def test_a_rule_that_gives_nan_is_reported(toy):
    def broken(oracle, points):
        return torch.full((len(points.index),), torch.nan, dtype=torch.float64)

    with pytest.raises(ModelError, match="'broken'"):
        Fitted("broken", "label", broken, 50, 60).score(recorded_oracle(toy, 0, "label"), Points.recorded(50, 60))


def test_unknown_attacks_are_named():
    with pytest.raises(EdgewardError, match="did you mean 'rmia-online'"):
        ATTACKS["rmia-onlin"]
