"""The first screen: one verdict per asset, each with the threshold it was judged against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.core.budget import Budget, Limit
from edgeward.report.wording import (
    NOT_MEASURED,
    amount,
    count,
    finite,
    interval,
    percent,
    ratio,
    with_bounds,
)

Tone = Literal["good", "bad", "warn", "plain"]
LEAKAGE_LIMITS = ("tpr_at_1pct", "tpr_at_0_1pct", "auc")
ASSETS = ("training records", "model weights", "user input")

TITLES: Mapping[str, str] = {
    "file_bytes": "file size",
    "peak_ram_bytes": "peak RAM",
    "device_latency_seconds": "device latency",
    "energy_joules": "energy per inference",
    "macs": "multiply-accumulates",
    "test_accuracy": "test accuracy",
    "tpr_at_1pct": "TPR at 1 % FPR",
    "tpr_at_0_1pct": "TPR at 0.1 % FPR",
    "auc": "attack AUC",
}


@final
@dataclass(frozen=True)
class Verdict:
    """What is said first about one asset: `status` was judged against `threshold`; `lines` hold the numbers."""

    asset: str
    status: str
    tone: Tone
    threshold: str
    lines: tuple[str, ...]


@final
@dataclass(frozen=True)
class Bar:
    """One limit of the budget: how much of it is used; `share` is value over bound, `met` None where not measured."""

    title: str
    value: str
    limit: str
    provenance: str
    share: float | None
    met: bool | None
    at_least: bool

    @property
    def width(self) -> float:
        """Length of the bar in percent of its track, which ends at 100 (a limit at least: at the whole range)."""
        return 0.0 if self.share is None else round(100 * min(max(self.share, 0.0), 1.0), 1)

    @property
    def status(self) -> str:
        """The words that go with the colour."""
        return NOT_MEASURED if self.met is None else "within the limit" if self.met else "over the limit"


def chosen_candidate(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of the chosen candidate."""
    return next((dict(c) for c in report["candidates"] if c["chosen"]), None)


def limit_value(candidate: Mapping[str, Any], name: str) -> float | None:
    """Return the number that the limit called `name` is judged on."""
    if name == "test_accuracy":
        return finite(candidate["test_accuracy"])
    if name in LEAKAGE_LIMITS:
        strongest = candidate["strongest_attack"]
        return finite(strongest[name]["value"]) if strongest else None
    return finite(candidate["cost"].get(name))


def gap_attack(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the gap attack, the baseline that only looks whether the answer is correct."""
    named = [attack for attack in candidate["attacks"] if attack["name"].split(":")[0].split(" ")[0] == "gap"]
    return named[0] if named else None


def limits(report: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Return the limits of the report's budget."""
    return Budget(**report["budget"]).limits()


def bars(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[Bar, ...]:
    """Return one bar per limit of the budget."""
    return tuple(_bar(limit, candidate) for limit in limits(report))


def _bar(limit: Limit, candidate: Mapping[str, Any]) -> Bar:
    value = limit_value(candidate, limit.name)
    note = candidate["cost"]["provenance"].get(limit.name)
    provenance = note["kind"] if note else "measured"
    share = None
    if value is not None:
        share = value / limit.bound if limit.bound else (0.0 if value == 0 else 2.0)
    return Bar(
        title=TITLES[limit.name],
        value=amount(value, limit.unit),
        limit=f"{limit.side} {amount(limit.bound, limit.unit)}",
        provenance=provenance,
        share=share,
        met=None if value is None else limit.miss(value) == 0,
        at_least=limit.side == "at least",
    )


def records_verdict(report: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> Verdict:
    """Judge the training records by the strongest attack: against the budget's limit, or else against chance."""
    asset = "training records"
    if candidate is None:
        return Verdict(asset, "no candidate was chosen", "plain", "", ("Nothing is said where nothing is shipped.",))
    strongest = candidate["strongest_attack"]
    if strongest is None:
        return Verdict(asset, NOT_MEASURED, "warn", "", ("No attack was run: nothing is known about leakage.",))
    status, tone, threshold = _judge_leakage(report, candidate, strongest)
    return Verdict(asset, status, tone, threshold, _leakage_lines(candidate, strongest))


def _judge_leakage(
    report: Mapping[str, Any], candidate: Mapping[str, Any], strongest: Mapping[str, Any]
) -> tuple[str, Tone, str]:
    judged = [limit for limit in limits(report) if limit.name in LEAKAGE_LIMITS]
    if judged:
        values = [limit_value(candidate, limit.name) for limit in judged]
        threshold = "judged against the budget: " + "; ".join(
            f"{TITLES[limit.name]} {limit.side} {ratio(limit.bound) if limit.name == 'auc' else percent(limit.bound)}"
            for limit in judged
        )
        if any(value is None for value in values):
            return NOT_MEASURED, "warn", threshold
        held = all(limit.miss(value) == 0 for limit, value in zip(judged, values, strict=True) if value is not None)
        return ("within the limit", "good", threshold) if held else ("over the limit", "bad", threshold)
    low, _ = interval(strongest["tpr_at_1pct"])
    threshold = "no limit was set; judged against chance: is the interval of the TPR at 1 % FPR above 1 %?"
    if low is None:
        return NOT_MEASURED, "warn", threshold
    return ("above chance", "warn", threshold) if low > 0.01 else ("not told apart from chance", "plain", threshold)


def _leakage_lines(candidate: Mapping[str, Any], strongest: Mapping[str, Any]) -> tuple[str, ...]:
    gap = gap_attack(candidate)
    kind = "canaries (worst case)" if strongest["audience"] == "canaries" else "population (average case)"
    shadow = "adaptive" if strongest["adaptive"] else "not adaptive"
    lines = [
        f"Strongest of {len(candidate['attacks'])} attacks, {strongest['name']}: finds "
        f"{with_bounds(strongest['tpr_at_1pct'])} of members at 1 % false positives (chance: 1 %).",
        f"Resolution: {count(strongest['negatives'])} non-member trials, {count(strongest['positives'])} member trials; "
        f"{kind}; {shadow}.",
    ]
    if gap is not None:
        lines.append(
            f"Gap baseline (is the answer correct?): TPR at 1 % FPR {with_bounds(gap['tpr_at_1pct'])}, "
            f"balanced accuracy {percent(gap['balanced_accuracy'])} (chance: 50 %)."
        )
    return tuple(lines)


def budget_verdict(report: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> Verdict:
    """Judge the budget: every limit met, some missed, or none set."""
    count_limits = len(limits(report))
    if candidate is None:
        nearest = [f"{c['recipe']}: {'; '.join(c['violations']) or 'meets the budget'}" for c in report["candidates"]]
        return Verdict("budget", "no candidate meets the budget", "bad", "every limit must hold", tuple(nearest[:5]))
    if not count_limits:
        return Verdict("budget", "no limit was set", "plain", "", ("Every measured candidate counts as feasible.",))
    drawn = bars(report, candidate)
    missed = [bar for bar in drawn if bar.met is False]
    unknown = [bar for bar in drawn if bar.met is None]
    threshold = "each limit is judged on the point estimate or the model's prediction named beside it"
    if missed or unknown:
        status = f"{len(missed)} of {count_limits} limits missed, {len(unknown)} not measured"
        return Verdict("budget", status, "bad" if missed else "warn", threshold, ())
    return Verdict("budget", f"all {count_limits} limits hold", "good", threshold, ())


def unclaimed_assets(candidate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the assets about which the candidate makes no claim."""
    claimed = {claim["asset"] for claim in candidate["claims"]}
    return tuple(asset for asset in ASSETS if asset not in claimed)
