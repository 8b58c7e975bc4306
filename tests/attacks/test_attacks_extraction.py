"""The stealing audit on really trained digit networks: what is stolen, in which order, and what the report says."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Attacker, Exposure, References
from edgeward.attacks.extraction.audit import runner
from edgeward.attacks.extraction.resampling import accuracy, ratio
from edgeward.core.errors import ConfigError, DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records

pytest_plugins = ["attacks.stealing_fixtures"]


def test_an_unprotected_model_is_stolen_whole(unprotected):
    assert unprotected.victim_accuracy.value > 0.85
    assert not unprotected.confidential
    assert unprotected.gap == 0
    for result in unprotected.budgets:
        assert result.attack == "as it is"
        assert result.fidelity.value == 1
        assert result.ratio_to_no_shield.value == 1
        assert result.accuracy.value == unprotected.victim_accuracy.value
    assert "not confidential: with 40 label queries 'as it is'" in unprotected.verdict


def test_strategies_are_ordered_by_what_they_show(unprotected, deep):
    for exposed, partly in zip(unprotected.budgets, deep.budgets, strict=True):
        assert exposed.black_box.value < partly.accuracy.value <= exposed.accuracy.value
    # With few queries the visible features matter most.
    assert deep.budgets[0].ratio_to_black_box.low > 1.05
    assert not deep.confidential


def test_more_queries_steal_more_of_a_black_box(unprotected):
    few, many = unprotected.budgets
    assert few.black_box.value + 0.05 < many.black_box.value


def test_showing_only_what_is_public_is_exactly_the_black_box(victim, parent, ends):
    shown = Exposure("public", victim, dict(parent.tensors), parent.tensors, taps=toys.relus(victim), direct=parent)
    report = toys.audited(shown, victim, ends)
    for result in report.budgets:
        assert result.ratio_to_black_box.value == result.ratio_to_black_box.low == 1
        # as near as so many holdout records can tell two models apart
        assert 1 < result.ratio_to_black_box.high < 1.03
        assert result.accuracy == result.black_box
    assert report.confidential
    assert report.verdict.startswith("confidential: with 40, 160 label queries")
    assert report.gap == pytest.approx(report.victim_accuracy.value - report.direct_accuracy.value)
    assert report.gap > 0.2


def test_a_black_box_attack_no_better_than_a_constant_answer_is_noted(victim, parent, ends):
    common = int(torch.bincount(toys.JUDGES.y).argmax())
    known = ends.black_box[40]
    guessing = replace(known, every=torch.full_like(known.every, common))
    weak = replace(ends, black_box={**ends.black_box, 40: guessing})
    lazy = Attacker(variants=("as it is",), epochs=1, steps=1)
    exposure = toys.no_shield(victim, parent.tensors)
    notes = toys.audited(exposure, victim, weak, attacker=lazy).notes
    assert [n for n in notes if "constant answer" in n] == [n for n in notes if n.startswith("at 40 queries the black")]
    assert any("constant answer" in n for n in notes)
    assert not any("constant answer" in n for n in toys.audited(exposure, victim, ends, attacker=lazy).notes)


@pytest.fixture(scope="module")
def child(parent):
    """A victim tuned from the public model."""
    return toys.tuned(parent, toys.X[toys.PRIVATE], toys.Y[toys.PRIVATE], 6, 1e-3)


@pytest.fixture(scope="module")
def childs_ends(child, parent):
    return toys.ends_of(child, parent, (40,))


def test_a_shadowed_model_is_stolen_through_its_public_parent(child, childs_ends, parent):
    exposure = Exposure.of("shadow", child, parent.tensors, related=True)
    report = toys.audited(exposure.shadowed(toys.convolutions(child), Seed(4)), child, childs_ends, budgets=(40,))
    assert report.recovered > 0.8
    assert report.budgets[0].accuracy.value > 0.9 * report.budgets[0].no_shield.value
    assert not report.confidential


def test_zeroing_large_weights_does_not_help_against_the_parent(child, childs_ends, parent):
    exposure = Exposure.of("magnitude", child, parent.tensors, related=True).zeroing(0.01)
    report = toys.audited(exposure, child, childs_ends, budgets=(40,))
    assert report.budgets[0].accuracy.value > 0.9 * report.budgets[0].no_shield.value
    assert not report.confidential


def test_a_disguise_before_a_stranger_is_not_called_confidential(victim, ends):
    exposure = Exposure.of("shadow", victim, toys.random_prior(victim, 3))
    report = toys.audited(exposure.shadowed(toys.convolutions(victim), Seed(4)), victim, ends)
    assert report.recovered == 0
    assert all(result.passes for result in report.budgets)
    assert not report.confidential
    assert "not shown to be confidential" in report.verdict
    assert report.trusted_disguises == 2


def test_taps_without_an_answer_are_attacked_with_a_monitor(victim, parent, ends):
    *_, last = toys.relus(victim)
    shown = replace(victim, outputs=toys.relus(victim))
    exposure = Exposure("taps", shown, dict(victim.tensors), {}, taps=(*toys.relus(victim),), answer=None)
    assert last in exposure.taps
    report = toys.audited(exposure, victim, ends)
    assert {a.variant for a in report.budgets[0].theft.tried} == {
        "head on taps",
        "monitor on taps",
    }
    assert report.budgets[0].ratio_to_black_box.value > 1.1
    assert report.direct_accuracy is None
    assert report.membership is None
    assert "no answer of its own" in report.membership_reason


ESTIMATE = {"type": "object", "required": ["value", "interval", "n", "method"]}
OPTIONAL = {"anyOf": [ESTIMATE, {"type": "null"}]}
RESULT = {
    "type": "object",
    "required": ["budget", "attack", "accuracy", "fidelity", "ratio_to_black_box", "ratio_to_no_shield", "passes"],
    "properties": {
        "budget": {"type": "integer"},
        "attack": {"type": "string"},
        **dict.fromkeys(("accuracy", "fidelity", "ratio_to_black_box", "ratio_to_no_shield", "no_shield"), ESTIMATE),
        "tried": {"type": "array", "items": {"required": ["variant", "rate", "validation", "likelihood"]}},
    },
}
SCHEMA = {
    "type": "object",
    "required": [
        "name",
        "verdict",
        "confidential",
        "bar",
        "victim_accuracy",
        "gap",
        "budgets",
        "membership",
        "recovery",
    ],
    "properties": {
        "confidential": {"type": "boolean"},
        "victim_accuracy": ESTIMATE,
        "direct_accuracy": OPTIONAL,
        "gap": {"type": ["number", "null"]},
        "budgets": {"type": "array", "minItems": 1, "items": RESULT},
        "membership": {"anyOf": [{"type": "object", "required": ["auc", "tpr_at_0_1pct"]}, {"type": "null"}]},
        "recovered": {"type": ["number", "null"]},
        "victim_queries": {"type": "integer"},
    },
}


def test_the_report_is_plain_json(unprotected, deep):
    for report in (unprotected, deep):
        plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
        jsonschema.validate(plain, SCHEMA)
    assert deep.to_json()["membership"] is None
    assert unprotected.to_json()["membership"]["tpr_at_0_1pct"]["negatives"] == len(toys.JUDGES)
    assert 0.4 < unprotected.membership.auc.value < 0.7


def test_membership_is_measured_on_an_over_fitted_visible_part(parent):
    few = Records(toys.X[:60], torch.randint(0, 10, (60,), generator=Seed(1).torch()), "few")
    over = toys.tuned(parent, few.x, few.y, 150, 1e-2)
    from edgeward.attacks.extraction.membership import visible_membership

    result = visible_membership(runner(over), few, toys.JUDGES)
    assert result.auc.low > 0.6
    with pytest.raises(DataError, match="too few records"):
        visible_membership(runner(over), few.subset(range(5)), toys.JUDGES)


def test_references_are_stored_and_refused_where_they_do_not_fit(ends, tmp_path, deep, victim, parent):
    path = tmp_path / "ends.safetensors"
    ends.save(path)
    again = References.load(path)
    assert again.seeds == ends.seeds
    for budget in toys.BUDGETS:
        assert torch.equal(again.black_box[budget].predictions, ends.black_box[budget].predictions)
        assert again.no_shield[budget].tried == ends.no_shield[budget].tried
    exposure = toys.black_box(victim, parent.tensors)
    with pytest.raises(ConfigError) as error:
        toys.audited(exposure, victim, again, budgets=(40, 41), seeds=3)
    assert "no reference at 41 queries" in str(error.value)
    assert "other seeds" in str(error.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        References.load(path)


def test_ratios_cancel_what_is_shared_and_cover_the_truth():
    generator = np.random.default_rng(0)
    hits = torch.from_numpy(generator.random((3, 400)) < 0.6)
    same = ratio(hits, hits, Seed(0))
    assert (same.value, same.low, same.high) == (1, 1, 1)
    covered = 0
    for trial in range(30):
        top, bottom = (torch.from_numpy(generator.random((4, 250)) < p) for p in (0.8, 0.5))
        found = ratio(top, bottom, Seed(trial))
        covered += found.low <= 1.6 <= found.high
    assert covered >= 24
    assert accuracy(torch.ones(2, 5).bool(), Seed(0)).low == 1
    assert np.isfinite(ratio(hits, torch.zeros(3, 400).bool(), Seed(0)).value)
