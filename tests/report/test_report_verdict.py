"""Verdicts: the words follow from the numbers and the stated threshold."""

import copy
import dataclasses
from typing import Any

import pytest
from report_fixture import attack, frontier, make_report, strongest

from edgeward.core import Budget
from edgeward.core.measurement import Measurement
from edgeward.report.untested import not_tested
from edgeward.report.verdict import (
    aside_attacks,
    bars,
    budget_verdict,
    choice_rule,
    chosen_candidate,
    gap_attack,
    gap_point,
    gap_rate,
    records_verdict,
)


def judged(limit: str | None, value: float, low: float, high: float) -> tuple[str, str, str]:
    report = make_report(Budget(tpr_at_1pct=limit) if limit else Budget())
    candidate = report["candidates"][0]
    strongest = candidate["strongest_attack"]["tpr_at_1pct"]
    strongest["value"], strongest["interval"] = value, [low, high]
    verdict = records_verdict(report, candidate)
    return verdict.status, verdict.tone, verdict.threshold


@pytest.mark.parametrize(
    ("limit", "numbers", "status", "tone", "words"),
    [
        ("5%", (0.03, 0.02, 0.04), "within the limit", "good", "stays below it too"),
        ("5%", (0.03, 0.02, 0.06), "within the limit", "good", "reaches past it"),
        ("5%", (0.06, 0.04, 0.08), "over the limit", "bad", "at most 5.0 %"),
        (None, (0.03, 0.02, 0.04), "above chance", "warn", "without a limit"),
        (None, (0.012, 0.008, 0.02), "not told apart from chance", "plain", "without a limit"),
    ],
)
def test_leakage_is_judged_against_the_stated_threshold(
    limit: str | None, numbers: tuple[float, float, float], status: str, tone: str, words: str
) -> None:
    got = judged(limit, *numbers)
    assert got[:2] == (status, tone)
    assert words in got[2]


def test_bars_show_use_and_bound() -> None:
    report = make_report(Budget(file_bytes=12_424, accuracy=0.9, latency="0.45ms"))
    candidate = next(c for c in report["candidates"] if c["recipe"] == "gecko:crossfit")
    size, latency, accuracy = bars(report, candidate)
    assert (size.filled, size.met, size.provenance) == (0.5, True, "measured")
    assert (latency.filled, latency.met, latency.provenance) == (1.0, False, "modelled")
    assert accuracy.filled == pytest.approx(0.951)
    assert (accuracy.mark, accuracy.met) == (0.9, True)


def test_a_limit_on_something_unmeasured_is_neither_met_nor_missed() -> None:
    report = make_report(Budget(energy="1J"))
    candidate = chosen_candidate(report)
    assert candidate is not None
    candidate["cost"]["energy_joules"] = None
    assert bars(report, candidate)[0].met is None
    assert budget_verdict(report, candidate).tone == "warn"


def test_an_infeasible_budget_names_the_nearest_candidates_first() -> None:
    verdict = budget_verdict(make_report(Budget(file_bytes=6_000)), None)
    assert verdict.tone == "bad"
    assert verdict.lines[0] == "gecko:paper: file size at most 5.9 KiB: came 6.1 KiB"
    assert verdict.lines[2].startswith("int8")


def test_the_gap_attack_is_the_baseline() -> None:
    gap = gap_attack(make_report()["candidates"][0])
    assert gap is not None
    assert gap["name"] == "gap"
    assert gap_attack({"attacks": [{"name": "gaussian"}]}) is None


def one_point(false: float, true: float) -> dict[str, Any]:
    return {"name": "gap", "roc": [[0.0, 0.0], [false, true], [1.0, 1.0]], "tpr_at_1pct": {"value": 0.0}}


@pytest.mark.parametrize(
    ("false", "true", "rate"), [(0.02, 1.0, 0.5), (0.01, 0.4, 0.4), (0.0, 0.2, 0.208), (0.3, 0.3, 0.01)]
)
def test_coin_flips_bring_the_gap_attack_to_one_percent(false: float, true: float, rate: float) -> None:
    assert gap_rate(one_point(false, true)) == pytest.approx(rate)
    assert gap_point(one_point(false, true)) == (false, true)


def test_a_gap_attack_with_a_whole_curve_keeps_its_rate() -> None:
    gap = gap_attack(make_report()["candidates"][0])
    assert gap is not None
    assert gap_point(gap) is None
    assert gap_rate(gap) == gap["tpr_at_1pct"]["value"]


def with_shipped_look(report: dict[str, Any], rate: float) -> dict[str, Any]:
    """Add an attack on typical records to the chosen candidate, with its interval a point around `rate`."""
    candidate = next(c for c in report["candidates"] if c["chosen"])
    extra = copy.deepcopy(candidate["attacks"][0])
    extra |= {"name": "loss (shipped model)", "kind": "population", "adaptive": False, "negatives": 500}
    extra["tpr_at_1pct"] |= {"value": rate, "interval": [rate - 0.01, rate + 0.01]}
    candidate["attacks"].append(extra)
    return candidate


def test_looks_at_the_shipped_model_stay_apart_from_the_audit() -> None:
    report = make_report()
    candidate = with_shipped_look(report, 0.012)
    assert [a["name"] for a in aside_attacks(candidate)] == ["loss (shipped model)"]
    lines = records_verdict(report, candidate).lines
    assert lines[0].startswith(
        "Worst of 2 kinds of records, mislabelled canaries; strongest of 3 attacks on them, lira:online: finds "
    )
    assert lines[1].startswith(
        "By kind, at 1 % false positives, corrected for choosing the attack: mislabelled canaries"
    )
    assert "; all training records " in lines[1]
    assert any(line.startswith("Apart from the audit") and "500 non-members" in line for line in lines)
    assert any("16 siblings trained with planted records" in line and "shipped executable" in line for line in lines)
    assert "Kinds of records that were not audited: mislabelled near-duplicates, " in sentences(report)


def test_a_louder_look_at_typical_records_is_not_green() -> None:
    report = make_report()
    verdict = records_verdict(report, with_shipped_look(report, 0.2))
    assert verdict.tone == "warn"
    assert "typical records of the shipped model leak more" in verdict.status


def test_a_rate_below_the_gap_baseline_is_not_green() -> None:
    report = make_report()
    candidate = chosen_candidate(report)
    assert candidate is not None
    gap = gap_attack(candidate)
    assert gap is not None
    gap["roc"] = [[0.0, 0.0], [0.02, 0.9], [1.0, 1.0]]
    verdict = records_verdict(report, candidate)
    assert (verdict.status, verdict.tone) == ("within the limit, but the gap baseline finds more", "warn")


def test_the_strongest_attack_is_never_a_look_at_the_shipped_model() -> None:
    canary = attack("lira", 0.02, 0.55)
    typical = dataclasses.replace(attack("loss (shipped model)", 0.2, 0.7), kind="population", adaptive=False)
    measurement = dataclasses.replace(frontier().measured[0].measurement, attacks=(canary, typical), worst=None)
    assert measurement.strongest_attack == canary
    alone = dataclasses.replace(measurement, attacks=(typical,))
    assert alone.strongest_attack == typical


def test_the_strongest_attack_is_the_one_on_the_worst_kind_with_its_corrected_rate() -> None:
    attacks = (attack("lira", 0.3, 0.7), attack("lira", 0.1, 0.6, "natural"), attack("rmia", 0.2, 0.6, "natural"))
    over_all = strongest("natural", "rmia", 0.05)
    measurement = dataclasses.replace(frontier().measured[0].measurement, attacks=attacks, worst=over_all)
    assert measurement.strongest_attack == dataclasses.replace(attacks[2], tpr_at_1pct=over_all.corrected)
    assert measurement.value("tpr_at_1pct") == over_all.corrected.value
    assert Measurement.from_json(measurement.to_json()) == measurement


def test_the_kind_aimed_at_a_recipe_is_missed_where_it_was_left_out() -> None:
    report = make_report()
    chosen = next(c for c in report["candidates"] if c["chosen"])
    chosen["extra"]["aimed_at"] = "twins"
    assert "aimed at this recipe's mechanism: mislabelled near-duplicates" in sentences(report)
    chosen["extra"]["aimed_at"] = "natural"
    assert "aimed at" not in sentences(report)


def test_the_choice_is_explained() -> None:
    report = make_report()
    candidate = chosen_candidate(report)
    assert candidate is not None
    rule = choice_rule(report, candidate)
    assert rule.startswith("3 of them feasible: the least leaking of those within one point")
    assert "dp_sgd leaks less (1.2 %) at validation accuracy 87.3 % against 95.2 %" in rule


def sentences(report: dict[str, Any]) -> str:
    return "\n".join(not_tested(report, chosen_candidate(report)))


def test_what_was_not_tested_follows_from_what_is_missing() -> None:
    report = make_report()
    assert "ternary failed" in sentences(report)
    assert "0.1 % with confidence: it needs about 10,000 non-member trials, there were 1,600" in sentences(report)
    assert "1 % with confidence: it needs about 1,000" not in sentences(report)
    assert "model weights: no claim" in sentences(report)
    assert "a prediction, not a measurement" in sentences(report)
    assert "White-box attacks that read weights." in sentences(report)
    assert "realistic threshold" not in sentences(report)
    assert "not finished" in sentences(make_report(finished=False))


def test_a_label_only_audit_says_who_was_left_out() -> None:
    report = make_report(threats=[{"threat": "membership", "access": "label"}])
    assert "only the predicted label was given" in sentences(report)


def test_a_printed_noise_seed_is_named() -> None:
    report = make_report()
    candidate = next(c for c in report["candidates"] if c["recipe"] == "dp_sgd")
    candidate["claims"][-1]["adversary"] = "holder of the model who does not know the noise seed"
    assert "this report prints it" not in "\n".join(not_tested(report, report["candidates"][0]))
    assert "this report prints it" in "\n".join(not_tested(report, candidate))
    report["job"].pop("seed")
    assert "this report prints it" not in "\n".join(not_tested(report, candidate))
