"""What a mirror report says first: is the chosen split confidential, does it keep its limits, what is open to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.report.verdict import Bar, Tone, Verdict
from edgeward.report.wording import NOT_MEASURED, amount, count, finite, interval, percent, ratio, with_bounds

ACCURACY_BASIS = "measured on the host: the integer reference, the same bits as the secure world's"
RATIO_BASIS = "measured against the attacks listed, at the largest ratio over the budgets"


def chosen_split(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the split that the bundle holds, None where none was chosen."""
    return next((dict(split) for split in report["splits"] if split["name"] == report["chosen"]), None)


def worst(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return the theft with the largest ratio to the black box; one without a number comes first."""
    thefts: list[dict[str, Any]] = split["stealing"]["budgets"]
    return max(thefts, key=lambda theft: _ratio(theft, missing=float("inf")))


def accuracy_floor(report: Mapping[str, Any]) -> float | None:
    """Return the lowest accuracy at which a split may be chosen."""
    victim = finite(report["victim_accuracy"]["value"])
    return None if victim is None else victim - float(report["largest_drop"])


def confidentiality(report: Mapping[str, Any], split: Mapping[str, Any] | None) -> Verdict:
    """Judge the secrecy of the function by the largest stealing ratio over the query budgets."""
    asset = "the network's function"
    if split is None:
        lines = (str(report["choice"]), "Nothing is said where nothing is shipped.")
        return Verdict(asset, "no split was chosen", "bad", "", lines)
    stealing = split["stealing"]
    threshold = (
        f"confidential only where stealing reaches at most {stealing['bar']:g} times the accuracy of the same attack "
        f"on a black box, at every budget: {', '.join(map(count, report['budgets']))} label queries"
    )
    status, tone = _judge(split, worst(split))
    return Verdict(asset, status, tone, threshold, (_sentence(split["verdict"]), _thief_line(split)))


def _judge(split: Mapping[str, Any], theft: Mapping[str, Any]) -> tuple[str, Tone]:
    stealing = split["stealing"]
    if not split["confidential"]:
        if stealing["confidential"]:
            return "not confidential: the visible part is enough", "bad"
        within = _ratio(theft, missing=float("inf")) <= stealing["bar"]
        return ("not shown to be confidential", "warn") if within else ("not confidential", "bad")
    _, high = interval(theft["ratio_to_black_box"])
    if high is None or high > stealing["bar"]:
        return "confidential on the point estimate; the interval reaches past the bar", "warn"
    return "confidential, measured against these attacks", "good"


def _thief_line(split: Mapping[str, Any]) -> str:
    theft = worst(split)
    return (
        f"At {count(theft['budget'])} queries the thief reaches {with_bounds(theft['accuracy'])} ({theft['attack']}), "
        f"the black-box attack {with_bounds(theft['black_box'])}, an unprotected network gives "
        f"{with_bounds(theft['no_shield'])}. {count(split['stealing']['seeds'])} independent attackers."
    )


def exposure(split: Mapping[str, Any] | None) -> Verdict:
    """Say what the normal world shows; its low accuracy is no measure of security and is never judged good."""
    asset = "what the normal world shows"
    if split is None:
        return Verdict(asset, "no split was chosen", "plain", "", ())
    stealing, lines = split["stealing"], []
    direct = stealing["direct_accuracy"]
    if direct is None:
        status = "no answer of its own"
        lines.append(_sentence(stealing["direct_reason"]))
    else:
        status = f"answers alone with {percent(direct['value'])}"
        gap = finite(stealing["gap"])
        points = NOT_MEASURED if gap is None else f"{100 * gap:.1f} points"
        lines.append(
            f"Direct use {with_bounds(direct)}, authorised {with_bounds(split['authorised_accuracy'])}: a gap of "
            f"{points}."
        )
    lines.append("The gap does not measure security: a few hundred labels can close it. The stealing ratio does.")
    return Verdict(asset, status, "plain", "", (*lines, _membership_line(stealing)))


def _membership_line(stealing: Mapping[str, Any]) -> str:
    found = stealing["membership"]
    if found is None:
        return f"Membership on the visible part: {_sentence(stealing['membership_reason'])}"
    return (
        f"Membership on the visible part: AUC {with_bounds(found['auc'], fraction=False)} (chance: 0.5), attack "
        f"{found['name']}, {count(found['positives'])} members and {count(found['negatives'])} others."
    )


def limit_bars(report: Mapping[str, Any], split: Mapping[str, Any]) -> tuple[Bar, ...]:
    """Return every limit of the run as a bar, with where the number comes from."""
    modelled, limits, basis = split["modelled"], report["limits"], f"modelled, basis: {split['modelled']['basis']}"
    stealing, least = split["stealing"], accuracy_floor(report)
    accuracy = finite(split["authorised_accuracy"]["value"])
    loses = f"at least {percent(least)} (the victim's less {100 * report['largest_drop']:g} points)"
    return (
        Bar(
            "authorised accuracy",
            percent(accuracy),
            loses,
            ACCURACY_BASIS,
            min(max(accuracy or 0.0, 0.0), 1.0),
            None if least is None else min(max(least, 0.0), 1.0),
            None if accuracy is None or least is None else accuracy >= least,
        ),
        _at_most(
            "stealing ratio", finite(worst(split)["ratio_to_black_box"]["value"]), stealing["bar"], ratio, RATIO_BASIS
        ),
        _at_most("overhead", finite(modelled["overhead"]), finite(limits["overhead"]), percent, basis),
        _at_most("secure RAM", finite(modelled["secure_ram_bytes"]), _memory(report, split), _size, basis),
        _at_most("switches", finite(modelled["switches"]), finite(limits["switches"]), count, "declared"),
    )


def _memory(report: Mapping[str, Any], split: Mapping[str, Any]) -> float:
    """Return the secure memory a split may take: what was asked for, or less where the device has less."""
    return min(float(report["limits"]["secure_ram"]), float(split["modelled"]["secure_ram_limit"]))


def _at_most(title: str, value: float | None, most: float | None, write: Any, provenance: str) -> Bar:
    filled = 0.0 if value is None or not most else min(max(value / most, 0.0), 1.0)
    met = None if value is None or most is None else value <= most
    return Bar(title, write(value), f"at most {write(most)}", provenance, filled, None, met)


def budget(report: Mapping[str, Any], split: Mapping[str, Any] | None) -> Verdict:
    """Judge the limits of the run: all kept, or how many are missed."""
    if split is None:
        return Verdict("limits", "no split keeps every limit", "bad", "", _nearest(report))
    drawn = [bar for bar in limit_bars(report, split) if bar.title != "stealing ratio"]
    missed = [bar.title for bar in drawn if bar.met is not True]
    threshold = "each limit is judged on the point estimate or the model's figure"
    if missed:
        return Verdict("limits", f"missed: {', '.join(missed)}", "bad", threshold, ())
    return Verdict("limits", f"all {len(drawn)} limits of device and accuracy hold", "good", threshold, ())


def standing(report: Mapping[str, Any], split: Mapping[str, Any]) -> str:
    """Return where a split stands: chosen, possible, or which limits it misses."""
    if split["name"] == report["chosen"]:
        return "chosen"
    missed = [b.title for b in limit_bars(report, split) if b.met is not True and b.title != "stealing ratio"]
    return f"over the limit: {', '.join(missed)}" if missed else "within the limits"


def _nearest(report: Mapping[str, Any]) -> tuple[str, ...]:
    ranked = sorted(report["splits"], key=lambda s: -(finite(s["authorised_accuracy"]["value"]) or 0.0))
    return tuple(
        f"{s['name']}: {percent(s['authorised_accuracy']['value'])}, {standing(report, s)}" for s in ranked[:5]
    )


def _ratio(theft: Mapping[str, Any], *, missing: float) -> float:
    found = finite(theft["ratio_to_black_box"]["value"])
    return missing if found is None else found


def _size(value: float | None) -> str:
    return amount(value, "B")


def _sentence(text: object) -> str:
    whole = str(text)
    return whole[:1].upper() + whole[1:].rstrip(".") + "."
