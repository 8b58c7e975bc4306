"""Verdicts: the words follow from the numbers and the stated threshold."""

from typing import Any

import pytest
from report_fixture import make_report

from edgeward.core import Budget
from edgeward.report.untested import not_tested
from edgeward.report.verdict import bars, budget_verdict, chosen_candidate, gap_attack, records_verdict


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
        (None, (0.03, 0.02, 0.04), "above chance", "warn", "no limit was set"),
        (None, (0.012, 0.008, 0.02), "not told apart from chance", "plain", "no limit was set"),
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
