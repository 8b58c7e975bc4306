"""The stealing audit on really trained digit networks: order of strategies, budgets, label-only access, repetition."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import (
    Attacker,
    Exposure,
    References,
    audit_split,
    measure_references,
    query_budgets,
    stealing,
)
from edgeward.attacks.extraction.attacker import VARIANTS
from edgeward.attacks.extraction.audit import runner
from edgeward.attacks.extraction.queries import LabelWindow
from edgeward.attacks.extraction.resampling import accuracy, ratio
from edgeward.attacks.extraction.stealing import Thief, seeds_of
from edgeward.attacks.extraction.surrogate import parameter_name
from edgeward.attacks.oracle import Oracle
from edgeward.core.errors import AccessViolation, ConfigError, DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records

SEEDS = 2


@pytest.fixture(scope="module")
def parent():
    """The public model: mirrored digits, other records."""
    return toys.train(toys.X[toys.PUBLIC].flip(-1), toys.Y[toys.PUBLIC], 15, 2)


@pytest.fixture(scope="module")
def victim():
    return toys.train(toys.X[toys.PRIVATE], toys.Y[toys.PRIVATE], 20, 1)


@pytest.fixture(scope="module")
def ends(victim, parent):
    return ends_of(victim, parent, toys.BUDGETS)


def ends_of(victim, parent, budgets, seeds=SEEDS):
    pair = toys.black_box(victim, parent.tensors), toys.no_shield(victim, parent.tensors)
    rest = (toys.labels_of(victim), toys.QUERIES, toys.JUDGES, budgets, seeds)
    return measure_references(*pair, *rest, attacker=toys.ATTACKER)


def audited(exposure, victim, ends, *, budgets=toys.BUDGETS, seeds=SEEDS, **more):
    oracle = victim if callable(victim) or isinstance(victim, Oracle) else toys.labels_of(victim)
    rest = (toys.QUERIES, toys.JUDGES, budgets, seeds)
    return audit_split(exposure, oracle, *rest, references=ends, **{"attacker": toys.ATTACKER, **more})


@pytest.fixture(scope="module")
def unprotected(victim, parent, ends):
    return audited(toys.no_shield(victim, parent.tensors), victim, ends, members=toys.MEMBERS)


@pytest.fixture(scope="module")
def deep(victim, parent, ends):
    hidden = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))
    return audited(hidden, victim, ends)


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
    report = audited(shown, victim, ends)
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
    notes = audited(exposure, victim, weak, attacker=lazy).notes
    assert [n for n in notes if "constant answer" in n] == [n for n in notes if n.startswith("at 40 queries the black")]
    assert any("constant answer" in n for n in notes)
    assert not any("constant answer" in n for n in audited(exposure, victim, ends, attacker=lazy).notes)


@pytest.fixture(scope="module")
def child(parent):
    """A victim tuned from the public model."""
    return toys.tuned(parent, toys.X[toys.PRIVATE], toys.Y[toys.PRIVATE], 6, 1e-3)


@pytest.fixture(scope="module")
def childs_ends(child, parent):
    return ends_of(child, parent, (40,))


def test_a_shadowed_model_is_stolen_through_its_public_parent(child, childs_ends, parent):
    exposure = Exposure.of("shadow", child, parent.tensors, related=True)
    report = audited(exposure.shadowed(toys.convolutions(child), Seed(4)), child, childs_ends, budgets=(40,))
    assert report.recovered > 0.8
    assert report.budgets[0].accuracy.value > 0.9 * report.budgets[0].no_shield.value
    assert not report.confidential


def test_zeroing_large_weights_does_not_help_against_the_parent(child, childs_ends, parent):
    exposure = Exposure.of("magnitude", child, parent.tensors, related=True).zeroing(0.01)
    report = audited(exposure, child, childs_ends, budgets=(40,))
    assert report.budgets[0].accuracy.value > 0.9 * report.budgets[0].no_shield.value
    assert not report.confidential


def test_a_disguise_before_a_stranger_is_not_called_confidential(victim, ends):
    exposure = Exposure.of("shadow", victim, toys.random_prior(victim, 3))
    report = audited(exposure.shadowed(toys.convolutions(victim), Seed(4)), victim, ends)
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
    report = audited(exposure, victim, ends)
    assert {a.variant for a in report.budgets[0].theft.tried} == {
        "head on taps",
        "monitor on taps",
    }
    assert report.budgets[0].ratio_to_black_box.value > 1.1
    assert report.direct_accuracy is None
    assert report.membership is None
    assert "no answer of its own" in report.membership_reason


def test_every_attacker_asks_its_budget_and_the_victim_at_most_once_per_record(victim, parent):
    asked = []
    run = runner(victim)
    oracle = Oracle(lambda x: asked.append(len(x)) or run(x), "label")
    window = LabelWindow(oracle, toys.QUERIES)
    quick = replace(toys.ATTACKER, variants=("new head",), epochs=1, steps=1)
    exposure = toys.black_box(victim, parent.tensors)
    thief = Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(3), quick)
    thief.steal(30)
    first = sum(asked)
    assert 30 < first <= 90
    thief.steal(30)
    assert sum(asked) == first == window.asked


def test_the_budget_is_a_hard_limit(victim):
    allowance = LabelWindow(toys.labels_of(victim), toys.QUERIES).allowance(10)
    assert len(allowance.labels(torch.arange(8))) == 8
    with pytest.raises(AccessViolation, match="8 asked, 3 more wanted"):
        allowance.labels(torch.arange(3))
    assert len(allowance.labels(torch.arange(2))) == 2


def test_the_victim_shows_labels_only(victim):
    oracle = toys.labels_of(victim)
    with pytest.raises(AccessViolation, match="confidence"):
        oracle.log_confidences(toys.QUERIES.x.numpy())
    labels = LabelWindow(oracle, toys.QUERIES).labels(torch.arange(5))
    deployed = LabelWindow(lambda x: runner(victim)(x).argmax(1), toys.QUERIES)
    assert torch.equal(labels, deployed.labels(torch.arange(5)))
    with pytest.raises(ModelError, match="not labels"):
        LabelWindow(runner(victim), toys.QUERIES).labels(torch.arange(5))


QUICK = replace(toys.ATTACKER, variants=("fine-tuned", "new head", "monitor on taps"), epochs=3, steps=3)


def test_the_same_seeds_repeat_and_others_differ(victim, parent):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))

    def predictions(seeds, attacker=QUICK):
        window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
        return Thief(exposure, window, toys.JUDGES.x, 10, seeds, attacker).steal(60)

    one, again, other = (predictions(seeds) for seeds in (seeds_of(2), seeds_of(2), (Seed(77), Seed(78))))
    assert torch.equal(one.predictions, again.predictions)
    assert one.tried == again.tried
    assert not torch.equal(one.predictions, other.predictions)
    assert not torch.equal(one.predictions[0], one.predictions[1])


def test_labels_of_the_holdout_and_of_the_pool_choose_nothing(victim, parent, ends):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))
    shuffled = toys.Y[toys.POOL].roll(1), toys.Y[toys.HOLDOUT].roll(1)
    chosen = []
    for pool, judges in ((toys.Y[toys.POOL], toys.Y[toys.HOLDOUT]), shuffled):
        window = LabelWindow(toys.labels_of(victim), Records(toys.X[toys.POOL], pool, "pool"))
        # the judge's classes rank rivals in hindsight; what the thief itself takes does not depend on them
        thief = Thief(exposure, window, toys.JUDGES.x, int(judges.max()) + 1, seeds_of(2), QUICK, truth=judges)
        chosen.append(thief.steal(60))
    assert chosen[0].tried == chosen[1].tried
    assert torch.equal(chosen[0].predictions, chosen[1].predictions)


def last_population(exposure, victim, monkeypatch):
    """Attack by training the hidden part and return the models that were handed in."""
    seen = []
    real = stealing.trained

    def spying(*positional, **named):
        seen.append(real(*positional, **named))
        return seen[-1]

    monkeypatch.setattr(stealing, "trained", spying)
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    attacker = replace(QUICK, variants=("hidden part trained",))
    Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(1), attacker).steal(30)
    return seen[-1]


def test_freezing_leaves_the_visible_part_alone(victim, parent, monkeypatch):
    exposure = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim))
    state = last_population(exposure, victim, monkeypatch).state(0)
    for key, tensor in victim.tensors.items():
        assert torch.equal(state[parameter_name(key)], tensor) == (key in exposure.visible)


def test_a_rate_that_diverges_loses_and_does_not_stop_the_audit(victim, parent):
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    wild = replace(QUICK, variants=("fine-tuned",), rates=(1e30, 1e-3))
    theft = Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(2), wild).steal(30)
    assert theft.best.rate == 1e-3
    assert theft.tried[0].validation == 0
    hopeless = replace(wild, rates=(1e30,))
    with pytest.raises(ModelError, match="every attack on 'black box' diverged"):
        Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(2), hopeless).steal(30)


def test_only_missing_entries_are_trained_and_the_others_stay(victim, monkeypatch):
    exposure = Exposure.of("magnitude", victim, {}).zeroing(0.05)
    state = last_population(exposure, victim, monkeypatch).state(0)
    for key, tensor in exposure.visible.items():
        found, gone = state[parameter_name(key)], tensor == 0
        assert torch.equal(found[~gone], tensor[~gone])
        assert not gone.any() or not torch.equal(found[gone], tensor[gone])


@pytest.mark.parametrize("variant", ["head on taps", "head and taps trained", "monitor on taps"])
def test_a_single_image_tap_is_enough(victim, variant):
    shown = replace(victim, outputs=toys.relus(victim)[:1])
    visible = {k: t for k, t in victim.tensors.items() if "0.conv2d" in k}
    exposure = Exposure("tap", shown, visible, {}, taps=shown.outputs, answer=None)
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    attacker = replace(toys.ATTACKER, variants=(variant,))
    theft = Thief(exposure, window, toys.JUDGES.x, 10, seeds_of(1), attacker).steal(100)
    assert (theft.predictions == toys.JUDGES.y).double().mean() > 0.15


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
        audited(exposure, victim, again, budgets=(40, 41), seeds=3)
    assert "no reference at 41 queries" in str(error.value)
    assert "other seeds" in str(error.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        References.load(path)


def test_budgets_are_counts_or_shares():
    assert query_budgets((50, 500, 0.01), 10_000) == (50, 100, 500)
    for wrong in ((), (0,), (-3,), (1e-5,)):
        with pytest.raises(ConfigError, match="cannot be audited"):
            query_budgets(wrong, 1000)


def test_a_pool_smaller_than_the_budget_is_refused(victim, parent):
    window = LabelWindow(toys.labels_of(victim), toys.QUERIES)
    thief = Thief(toys.black_box(victim, parent.tensors), window, toys.JUDGES.x, 10, seeds_of(1), QUICK)
    with pytest.raises(DataError, match="the pool holds 300 records"):
        thief.steal(301)


def test_settings_that_cannot_attack_are_refused():
    with pytest.raises(ConfigError, match="fine-tuned"):
        Attacker(variants=("fine tuned",))
    with pytest.raises(ConfigError, match="validation"):
        Attacker(validation=1.0)
    assert set(Attacker().variants) == set(VARIANTS)


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


def test_records_asked_before_are_not_asked_again():
    asked = []

    def answer(x):
        asked.append(len(x))
        return np.zeros(len(x), np.int64)

    window = LabelWindow(answer, Records(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), "pool"))
    rows = torch.tensor([0, 2])
    assert window.labels(rows).tolist() == window.labels(rows).tolist() == [0, 0]
    assert asked == [2]
