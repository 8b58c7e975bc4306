"""Queries that are no records, adaptive queries, the best in hindsight, and what few holdout records can show."""

from dataclasses import replace

import pytest
import torch

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Attacker, Exposure, audit_split, measure_references
from edgeward.attacks.extraction.attacker import Attempt, Theft
from edgeward.attacks.extraction.probing import QUERIES, Probes, spread, undecided
from edgeward.attacks.extraction.references import References
from edgeward.attacks.extraction.resampling import best_ratio
from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records

pytest_plugins = ["attacks.stealing_fixtures"]
QUICK = replace(toys.ATTACKER, variants=("as it is", "fine-tuned", "new head"), epochs=2, steps=20)
FOREIGN = Records(toys.X[toys.PUBLIC].flip(-2), toys.Y[toys.PUBLIC], "foreign")


def audited(victim, parent, exposure, *, attacker=QUICK, holdout=toys.JUDGES, budgets=(20,), **more):
    ends = toys.black_box(victim, parent.tensors), toys.no_shield(victim, parent.tensors)
    rest = (toys.labels_of(victim), toys.QUERIES, holdout, budgets, 1)
    found = measure_references(*ends, *rest, attacker=attacker, **more)
    return audit_split(exposure, *rest, references=found, attacker=attacker, **more)


def test_every_kind_of_input_lies_where_its_span_says():
    probes = Probes.of(toys.QUERIES, tuple(QUERIES), 30, FOREIGN)
    assert set(probes.spans) == {"records", "mixtures", "noise", "foreign"}
    assert [len(probes.spans[n]) for n in ("records", "mixtures", "noise", "foreign")] == [300, 30, 30, 300]
    assert sum(map(len, probes.spans.values())) == len(probes.pool)
    noise = probes.pool.x[list(probes.spans["noise"])]
    assert float(noise.min()) >= float(toys.QUERIES.x.min())
    assert float(noise.max()) <= float(toys.QUERIES.x.max())
    assert torch.equal(probes.pool.x[list(probes.spans["foreign"])], FOREIGN.x)
    with pytest.raises(DataError, match="do not fit"):
        Probes.of(toys.QUERIES, ("foreign",), 5, Records(torch.zeros(3, 4), torch.zeros(3).long(), "flat"))


def test_spread_reaches_every_cluster_before_any_twice():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = centres.repeat_interleave(25, 0) + 0.01 * torch.randn(100, 2, generator=Seed(1).torch())
    assert {int(row) // 25 for row in spread(points, 4, Seed(2))} == {0, 1, 2, 3}
    assert len(set(spread(points, 100, Seed(2)).tolist())) == 100


def test_undecided_are_the_smallest_margins():
    logits = torch.tensor([[5.0, 0.0, 0.0], [1.0, 0.9, -3.0], [0.0, 2.0, 1.8], [9.0, 1.0, 0.0]])
    assert set(undecided(logits, 2).tolist()) == {1, 2}


@pytest.mark.parametrize("wrong", [{"queries": ("guess",)}, {"queries": ("noise",)}, {"finalists": 0}])
def test_an_attacker_refuses_ways_that_are_none(wrong):
    with pytest.raises(ConfigError):
        Attacker(**wrong)


def test_every_way_to_query_is_tried_within_its_budget(victim, parent):
    attacker = replace(QUICK, queries=tuple(QUERIES), variants=("fine-tuned",))
    report = audited(victim, parent, toys.black_box(victim, parent.tensors), attacker=attacker, foreign=FOREIGN)
    (result,) = report.budgets
    assert {rival.queries for rival in result.theft.rivals} == set(QUERIES)
    assert not any("not tried" in note for note in report.notes)
    # records, the second half of margin, and four further pools of 20 at most
    assert report.victim_queries <= 20 + 10 + 4 * 20
    plain = audited(
        victim, parent, toys.black_box(victim, parent.tensors), attacker=replace(attacker, queries=("records",))
    )
    assert any("not tried" in note and "noise" in note for note in plain.notes)
    assert result.accuracy.value >= plain.budgets[0].accuracy.value


def theft(every, chosen):
    rivals = tuple(Attempt(f"variant {n}", 1e-3, 0.5, -1.0) for n in range(len(every)))
    return Theft(20, rivals[chosen], rivals, every[chosen], rivals, every)


def test_the_judge_takes_the_best_in_hindsight_not_the_thiefs_choice(victim, parent, monkeypatch):
    """The thief prefers a bad variant; the label follows the good one."""
    truth = toys.JUDGES.y
    wrong = (truth + 1) % 10
    good, bad = truth.clone(), wrong.clone()
    good[:100] = wrong[:100]
    bad[:100] = truth[:100]
    own, boxed = theft(torch.stack([bad, good])[:, None], 0), theft(bad[None, None], 0)
    seeds = (Seed(0).child("attacker", 0),)
    found = References({20: boxed}, {20: own}, seeds, toys.JUDGES.digest)
    monkeypatch.setattr("edgeward.attacks.extraction.stealing.Thief.steal", lambda self, budget: own)
    oracle = toys.labels_of(victim)
    rest = (oracle, toys.QUERIES, toys.JUDGES, (20,), 1)
    report = audit_split(toys.black_box(victim, parent.tensors), *rest, references=found, attacker=QUICK)
    (result,) = report.budgets
    assert result.attack == "variant 1"
    assert result.own_choice.attack == "variant 0"
    assert result.own_choice.ratio_to_black_box.value == pytest.approx(1)
    assert result.ratio_to_black_box.value == pytest.approx((len(truth) - 100) / 100)
    assert report.standing == "not confidential"
    assert not report.confidential


def test_few_holdout_records_show_nothing(victim, parent):
    few = toys.JUDGES.subset(range(40), "few")
    exposure = toys.black_box(victim, parent.tensors)
    small, large = audited(victim, parent, exposure, holdout=few), audited(victim, parent, exposure)
    assert all(result.ratio_to_black_box.value == 1 for result in (*small.budgets, *large.budgets))
    assert small.standing == "not shown"
    assert "not shown to be confidential" in small.verdict
    assert "40 holdout records leave up to" in small.verdict
    assert large.standing == "confidential"


def test_the_interval_of_the_best_takes_the_best_anew_in_every_draw():
    generator = Seed(3).torch()
    hits = torch.rand(6, 1, 400, generator=generator) < 0.5
    found = best_ratio(hits, hits[:1], Seed(4))
    best = float(hits.double().mean((1, 2)).max() / hits[0].double().mean())
    assert found.value == pytest.approx(best)
    assert found.low <= found.value <= found.high
    same = best_ratio(hits[:1], hits[:1], Seed(4))
    assert same.value == same.low == 1
    assert same.high == pytest.approx(1 + (1 - 0.025 ** (1 / 400)) / float(hits[0].double().mean()))


def test_ratios_on_the_records_that_choose_come_beside_those_of_the_holdout(victim, parent):
    choosing, judges = toys.JUDGES.subset(range(200), "choosing"), toys.JUDGES.subset(range(200, 497), "judges")
    exposure = toys.no_shield(victim, parent.tensors)
    report = audited(victim, parent, exposure, holdout=judges, choosing=choosing)
    (result,) = report.budgets
    assert result.choosing.n == 200
    assert result.ratio_to_black_box.n == len(judges)
    assert result.choosing.value > 1.05
    assert report.direct_choosing.n == 200
    alone = audited(victim, parent, exposure, holdout=judges)
    assert alone.budgets[0].choosing is None
    assert alone.budgets[0].ratio_to_black_box == result.ratio_to_black_box


def test_what_shows_no_more_than_the_black_box_is_not_attacked_twice(victim, parent, monkeypatch):
    """Public tensors shown in the open are where the black-box attack starts anyway; one's own are not."""
    ends = toys.black_box(victim, parent.tensors), toys.no_shield(victim, parent.tensors)
    rest = (toys.labels_of(victim), toys.QUERIES, toys.JUDGES, (20,), 1)
    found = measure_references(*ends, *rest, attacker=QUICK)
    shown = Exposure("public", victim, dict(parent.tensors), parent.tensors, taps=toys.relus(victim))
    again = audit_split(shown, *rest, references=replace(found, sights=()), attacker=QUICK)

    def never(self, budget):
        raise AssertionError("attacked")

    monkeypatch.setattr("edgeward.attacks.extraction.stealing.Thief.steal", never)
    report = audit_split(shown, *rest, references=found, attacker=QUICK)
    assert report.budgets[0].accuracy == again.budgets[0].accuracy
    assert report.budgets[0].ratio_to_black_box == again.budgets[0].ratio_to_black_box
    assert report.victim_queries == again.victim_queries
    with pytest.raises(AssertionError, match="attacked"):
        audit_split(ends[1], *rest, references=found, attacker=QUICK)
    other = (toys.labels_of(parent), *rest[1:])
    with pytest.raises(AssertionError, match="attacked"):
        audit_split(shown, *other, references=found, attacker=QUICK)


def test_references_labelled_by_another_form_of_the_victim_are_noted(victim, parent):
    ends = toys.black_box(victim, parent.tensors), toys.no_shield(victim, parent.tensors)
    rest = (toys.QUERIES, toys.JUDGES, (20,), 1)
    other = measure_references(*ends, toys.labels_of(parent), *rest, attacker=QUICK)
    report = audit_split(ends[0], toys.labels_of(victim), *rest, references=other, attacker=QUICK)
    assert any("another form of the victim" in note for note in report.notes)
