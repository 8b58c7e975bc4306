"""What was not tested: derived from what a report lacks, so that silence is never read as evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.core.record_kind import KINDS
from edgeward.report.verdict import audited_attacks, gap_attack, unclaimed_assets
from edgeward.report.wording import clean, count, finite

_RULE = 10
_LEVELS = ((0.01, "1 %"), (0.001, "0.1 %"))


def not_tested(report: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return sentences about what this run says nothing about, for `candidate` or for the run as a whole."""
    found = [] if report["finished"] else ["The run was not finished: candidates may be missing."]
    found += [f"Recipe {entry['recipe']} failed and was not measured." for entry in report["failed"]]
    if candidate is not None:
        found += (
            _assets(candidate)
            + _attacks(report, candidate)
            + _seed(report, candidate)
            + _named(candidate)
            + _costs(candidate)
        )
    return tuple(found)


def _assets(candidate: Mapping[str, Any]) -> list[str]:
    return [f"The {asset}: no claim is made and nothing was tested." for asset in unclaimed_assets(candidate)]


def _attacks(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    strongest = candidate["strongest_attack"]
    if strongest is None:
        return ["Leakage of training records: no attack was run."]
    found = ["Attacks other than those listed; a stronger attack may exist."]
    if not gap_attack(candidate):
        found.append("The gap attack (a baseline that needs no shadow models) is missing.")
    if not all(attack["adaptive"] for attack in audited_attacks(candidate)):
        found.append("Adaptive attackers, for at least one attack: its shadow models did not go through the recipe.")
    audited = {kind["kind"] for kind in candidate["kinds"]}
    left_out = [kind.title for kind in KINDS.values() if kind.slug not in audited]
    if left_out:
        found.append(f"Kinds of records that were not audited: {', '.join(left_out)}.")
    aimed = candidate["extra"].get("aimed_at")
    if aimed in KINDS and aimed not in audited:
        found.append(f"The kind of records aimed at this recipe's mechanism: {KINDS[aimed].title}.")
    found.append("Records unlike the audited kinds; the most exposed ones were those of plain training.")
    if finite(strongest["realistic_tpr_at_1pct"]) is None:
        found.append("The realistic threshold, chosen without seeing the target: rates are read off the pooled ROC.")
    found += _access(report)
    negatives = strongest["negatives"]
    found += [
        f"A false-positive rate of {name} with confidence: it needs about {count(_RULE / level)} non-member trials, "
        f"there were {count(negatives)}."
        for level, name in _LEVELS
        if negatives < _RULE / level
    ]
    return found


def _seed(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Return a warning where a claim needs a secret seed that the report itself prints."""
    needed = any("noise seed" in claim["adversary"] for claim in candidate["claims"])
    printed = needed and report["job"].get("seed") is not None
    return ["Adversaries who know the noise seed: a claim excludes them, and this report prints it."] if printed else []


def _named(candidate: Mapping[str, Any]) -> list[str]:
    """Return what the measurement itself names as untested, under `untested` of its extra values."""
    named = candidate["extra"].get("untested", [])
    return [f"{clean(text)[:1].upper()}{clean(text)[1:]}." for text in named] if isinstance(named, list) else []


def _access(report: Mapping[str, Any]) -> list[str]:
    accesses = {t.get("access") for t in report["threats"] if isinstance(t, dict) and t.get("threat") == "membership"}
    if accesses and accesses <= {"label"}:
        return ["Attackers who see confidences, weights or gradients: only the predicted label was given."]
    if accesses:
        return ["Attackers who read the weights, gradients or timing: attacks saw the answers only."]
    return []


def _costs(candidate: Mapping[str, Any]) -> list[str]:
    kinds = {name: note["kind"] for name, note in candidate["cost"]["provenance"].items()}
    found = []
    if kinds.get("device_latency_seconds") != "measured":
        found.append("Latency on the device itself: the number is a prediction, not a measurement on the board.")
    if kinds.get("energy_joules") != "measured":
        found.append("Energy on the device itself: the number is a prediction, no power was measured.")
    if candidate["mode"] != "deployed":
        found.append(f"The deployed device: accuracy and leakage were measured in mode '{candidate['mode']}'.")
    return found
