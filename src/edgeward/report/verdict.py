"""The first screen: one verdict per asset, each with the threshold it was judged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.core.budget import Budget, Limit
from edgeward.core.record_kind import KINDS
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
POPULATION = "population"
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
    """One limit of the budget as a bar.

    The track of a limit "at most" ends at the bound; that of a limit "at least" (a fraction) ends at 1 and `mark` shows
    the bound. `filled` and `mark` are shares of the track in [0, 1]; `met` is None where nothing was measured.
    """

    title: str
    value: str
    limit: str
    provenance: str
    filled: float
    mark: float | None
    met: bool | None

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


def kind_title(slug: str) -> str:
    """Return how a kind of audited records is called; `population` are typical records of the shipped model alone."""
    return KINDS[slug].title if slug in KINDS else "typical records of the shipped model"


def audited_attacks(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attacks on the kind of records that the strongest one belongs to, the worst that was audited."""
    strongest = candidate.get("strongest_attack")
    return [a for a in candidate["attacks"] if not strongest or a["kind"] == strongest["kind"]]


def aside_attacks(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attacks on the shipped model alone, without shadow models, that stand beside an audit."""
    strongest = candidate.get("strongest_attack")
    alone = strongest and strongest["kind"] == POPULATION
    return [] if alone else [attack for attack in candidate["attacks"] if attack["kind"] == POPULATION]


def gap_attack(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the audit's gap attack, the baseline that only looks whether the answer matches the label."""
    named = [a for a in audited_attacks(candidate) if a["name"].split(":")[0].split(" ")[0] == "gap"]
    return named[0] if named else None


def gap_point(gap: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the one (FPR, TPR) that a yes-or-no attack has, None where its curve shows more than one."""
    ends = ((0.0, 0.0), (1.0, 1.0))
    inner = [(finite(a), finite(b)) for a, b in gap["roc"] if (a, b) not in ends]
    if len(gap["roc"]) < 2 or len(inner) > 1:
        return None
    false, true = inner[0] if inner else ends[0]
    return None if false is None or true is None else (false, true)


def gap_rate(gap: Mapping[str, Any]) -> float | None:
    """Return what the gap attack reaches at 1 % FPR when coin flips move its one operating point there.

    A yes-or-no answer has no threshold to tune: read off its ROC, the rate would be 0 whenever its FPR exceeds 1 %.

    >>> round(gap_rate({"roc": [[0, 0], [0.02, 1.0], [1, 1]]}), 3)
    0.5
    """
    point = gap_point(gap)
    if point is None:
        return finite(gap["tpr_at_1pct"]["value"])
    false, true = point
    return true * 0.01 / false if false > 0.01 else true + (1 - true) * (0.01 - false) / (1 - false)


def limits(report: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Return the limits of the report's budget."""
    return Budget(**report["budget"]).limits()


def bound(limit: Limit) -> str:
    """Write a limit's bound with its unit."""
    return ratio(limit.bound) if limit.name == "auc" else amount(limit.bound, limit.unit)


def bars(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[Bar, ...]:
    """Return one bar per limit of the budget."""
    return tuple(_bar(limit, candidate) for limit in limits(report))


def _bar(limit: Limit, candidate: Mapping[str, Any]) -> Bar:
    value = limit_value(candidate, limit.name)
    note = candidate["cost"]["provenance"].get(limit.name)
    at_least = limit.side == "at least"
    track = 1.0 if at_least else limit.bound
    filled = 0.0 if value is None else value / track if track else float(value > 0)
    return Bar(
        title=TITLES[limit.name],
        value=ratio(value) if limit.name == "auc" else amount(value, limit.unit),
        limit=f"{limit.side} {bound(limit)}",
        provenance=note["kind"] if note else f"measured, mode {candidate['mode']}, {_measured_on(limit)}",
        filled=min(max(filled, 0.0), 1.0),
        mark=min(limit.bound, 1.0) if at_least else None,
        met=None if value is None else limit.miss(value) == 0,
    )


def _measured_on(limit: Limit) -> str:
    return "shipped executable" if limit.name == "test_accuracy" else "audited siblings"


def choice_rule(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    """Say why `candidate` was chosen, and name the feasible ones that leak less and were not."""
    feasible = [c for c in report["candidates"] if c["feasible"]]
    rule = (
        f"{len(feasible)} of them feasible: the least leaking of those within one point of the best validation accuracy"
    )
    leakage = limit_value(candidate, "tpr_at_1pct")
    less = [c for c in feasible if (limit_value(c, "tpr_at_1pct") or 0.0) < (leakage or 0.0)]
    passed = [
        f"{c['recipe']} leaks less ({percent(limit_value(c, 'tpr_at_1pct'))}) at validation accuracy "
        f"{percent(c['validation_accuracy']['value'])} against {percent(candidate['validation_accuracy']['value'])}"
        for c in less[:3]
    ]
    return "; ".join([rule, *passed])


def records_verdict(report: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> Verdict:
    """Judge the training records by the strongest attack: against the budget's limit, or else against chance."""
    asset = "training records"
    if candidate is None:
        return Verdict(asset, "no candidate was chosen", "plain", "", ("Nothing is said where nothing is shipped.",))
    strongest = candidate["strongest_attack"]
    if strongest is None:
        return Verdict(asset, NOT_MEASURED, "warn", "", ("No attack was run: nothing is known about leakage.",))
    status, tone, threshold = _judge_leakage(report, candidate, strongest)
    louder = _louder(candidate, strongest)
    if louder and tone != "bad":
        status, tone = f"{status}, but {louder}", "warn"
    return Verdict(asset, status, tone, threshold, _leakage_lines(report, candidate, strongest))


def _judge_leakage(
    report: Mapping[str, Any], candidate: Mapping[str, Any], strongest: Mapping[str, Any]
) -> tuple[str, Tone, str]:
    judged = [limit for limit in limits(report) if limit.name in LEAKAGE_LIMITS]
    if judged:
        values = [limit_value(candidate, limit.name) for limit in judged]
        threshold = "judged against the budget: " + "; ".join(
            f"{TITLES[limit.name]} {limit.side} {bound(limit)}" for limit in judged
        )
        if any(value is None for value in values):
            return NOT_MEASURED, "warn", threshold
        held = all(limit.miss(value) == 0 for limit, value in zip(judged, values, strict=True) if value is not None)
        if not held:
            return "over the limit", "bad", threshold
        return "within the limit", "good", threshold + _reach(judged, strongest)
    low, _ = interval(strongest["tpr_at_1pct"])
    threshold = "without a limit, judged against chance: is the interval of the TPR at 1 % FPR above 1 %?"
    if low is None:
        return NOT_MEASURED, "warn", threshold
    return ("above chance", "warn", threshold) if low > 0.01 else ("not told apart from chance", "plain", threshold)


def _reach(judged: Sequence[Limit], strongest: Mapping[str, Any]) -> str:
    """Say whether the intervals hold the limits too: the budget judges point estimates."""
    highs = [(limit, interval(strongest[limit.name])[1]) for limit in judged]
    past = any(high is None or limit.miss(high) > 0 for limit, high in highs)
    return " on the point estimate; the 95 % interval " + ("reaches past it" if past else "stays below it too")


def _baseline(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    plain = [c for c in report["candidates"] if c["recipe"] == "none" and c["strongest_attack"] and c is not candidate]
    if not plain or candidate["recipe"] == "none":
        return []
    attack = plain[0]["strongest_attack"]
    return [f"Without protection (recipe none): {with_bounds(attack['tpr_at_1pct'])}, {attack['name']}."]


def _louder(candidate: Mapping[str, Any], strongest: Mapping[str, Any]) -> str:
    """Say what beats the strongest rate beyond its interval: the shipped model's records, or the gap's coin flips.

    Attacks with few distinct scores can have no threshold near 1 % FPR; their rate then hides what they know.
    """
    _, high = interval(strongest["tpr_at_1pct"])
    if high is None:
        return ""
    lows = [interval(attack["tpr_at_1pct"])[0] for attack in aside_attacks(candidate)]
    if any(low is not None and low > high for low in lows):
        return "typical records of the shipped model leak more than the audited kinds"
    gap = gap_attack(candidate)
    rate = gap_rate(gap) if gap else None
    return "the gap baseline finds more" if rate is not None and rate > high else ""


def _leakage_lines(
    report: Mapping[str, Any], candidate: Mapping[str, Any], strongest: Mapping[str, Any]
) -> tuple[str, ...]:
    shadow = "adaptive (shadow models of the same recipe)" if strongest["adaptive"] else "not adaptive"
    return (
        f"Worst of {count(max(len(candidate['kinds']), 1))} kinds of records, {kind_title(strongest['kind'])}; "
        f"strongest of {len(audited_attacks(candidate))} attacks on them, {strongest['name']}: finds "
        f"{with_bounds(strongest['tpr_at_1pct'])} of members at 1 % false positives (chance: 1 %); balanced accuracy "
        f"{percent(strongest['balanced_accuracy'])} with the threshold in hindsight (chance: 50 %).",
        *_kinds_line(candidate),
        *_gap_line(candidate),
        *_baseline(report, candidate),
        f"Resolution: {count(strongest['negatives'])} non-member trials, {count(strongest['positives'])} member "
        f"trials; {shadow}.",
        *_aside_line(candidate),
        *_whose(candidate, strongest),
    )


def _kinds_line(candidate: Mapping[str, Any]) -> list[str]:
    rates = [f"{kind_title(k['kind'])} {percent(k['corrected']['value'])}" for k in candidate["kinds"]]
    return [f"By kind, at 1 % false positives, corrected for choosing the attack: {'; '.join(rates)}."] if rates else []


def _gap_line(candidate: Mapping[str, Any]) -> list[str]:
    gap = gap_attack(candidate)
    if gap is None:
        return []
    point = gap_point(gap)
    reached = "" if point is None else f"yes for {percent(point[1])} of members, {percent(point[0])} of others; "
    return [
        f"Gap baseline (does the answer match the label?): {reached}{percent(gap_rate(gap))} at 1 % false "
        f"positives; balanced accuracy {percent(gap['balanced_accuracy'])}."
    ]


def _aside_line(candidate: Mapping[str, Any]) -> list[str]:
    aside = sorted(aside_attacks(candidate), key=lambda a: -(finite(a["tpr_at_1pct"]["value"]) or 0.0))
    if not aside:
        return []
    best = aside[0]
    return [
        f"Apart from the audit, the best of {len(aside)} attacks on {kind_title(best['kind'])}, {best['name']}: "
        f"{with_bounds(best['tpr_at_1pct'])}, {count(best['negatives'])} non-members"
        f"{'' if best['adaptive'] else ', not adaptive'}."
    ]


def _whose(candidate: Mapping[str, Any], strongest: Mapping[str, Any]) -> list[str]:
    """Say which models the rates are of and which the accuracy is of: they were trained on different records."""
    audited = candidate["audit_accuracy"]
    if not audited:
        return []
    trained, without = siblings_trained(strongest), ", trained on all records and on nothing planted"
    return [
        f"Leakage is of {count(audited['n'])} siblings {trained} (accuracy {percent(audited['value'])}); test accuracy "
        f"{percent(candidate['test_accuracy'])} and cost are of the shipped executable{without}."
    ]


def siblings_trained(strongest: Mapping[str, Any] | None) -> str:
    """Say what the audited siblings of the worst kind were trained on."""
    kind = KINDS.get(strongest["kind"]) if strongest else None
    return "trained with planted records" if kind and kind.planted else "trained on random halves of the records"


def budget_verdict(report: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> Verdict:
    """Judge the budget: every limit met, some missed, or none set."""
    count_limits = len(limits(report))
    if candidate is None:
        nearest = sorted(report["candidates"], key=lambda c: _distance(report, c))[:5]
        lines = tuple(f"{c['recipe']}: {'; '.join(c['violations']) or 'meets the budget'}" for c in nearest)
        return Verdict("budget", "no candidate meets the budget", "bad", "every limit must hold; nearest first", lines)
    if not count_limits:
        return Verdict("budget", "no limit to judge", "plain", "", ("Every measured candidate counts as feasible.",))
    drawn = bars(report, candidate)
    missed = [bar for bar in drawn if bar.met is False]
    unknown = [bar for bar in drawn if bar.met is None]
    threshold = "each limit is judged on the point estimate or the model's prediction named beside it"
    if missed or unknown:
        status = f"{len(missed)} of {count_limits} limits missed, {len(unknown)} not measured"
        return Verdict("budget", status, "bad" if missed else "warn", threshold, ())
    return Verdict("budget", f"all {count_limits} limits hold", "good", threshold, ())


def _distance(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> float:
    """Return the summed relative misses of a candidate; a limit that could not be judged counts as missed by all."""
    values = [(limit, limit_value(candidate, limit.name)) for limit in limits(report)]
    return sum(1.0 if value is None else limit.miss(value) for limit, value in values)


def unclaimed_assets(candidate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the assets about which the candidate makes no claim."""
    claimed = {claim["asset"] for claim in candidate["claims"]}
    return tuple(asset for asset in ASSETS if asset not in claimed)
