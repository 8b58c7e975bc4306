"""What a mirror run did not test, derived from what its report lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeward.report.wording import clean, count

USUAL_STEPS = 200


def split_not_tested(report: Mapping[str, Any], split: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return sentences about what the run says nothing about, for `split` or for the run as a whole."""
    shown = [split] if split is not None else report["splits"]
    most = max(report["budgets"])
    found = [
        f"Thieves with more than {count(most)} label queries, or with records of another origin than the shadow part.",
        "Attacks other than the variants listed: what was stolen is a lower bound on what can be stolen.",
        "Taps that belong to no input, handed to the secure world by hand.",
        *_queries(shown, most),
        "The device: no board was run. Time and secure memory are modelled, and no power was measured.",
        "The isolation of the secure world: accuracy and stealing were measured on the integer reference, and the "
        "tiers 'wasm' and 'process' that run a bundle are emulated, which the owner of the machine can read.",
    ]
    if not report["public_prior"]:
        found.append(
            "Thieves who hold public weights of the architecture: none were given, they started from fresh weights."
        )
    found += list(dict.fromkeys(line for each in shown for line in _of(each)))
    return tuple(found)


def _queries(shown: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """Return what is open about how often a device may be asked."""
    limits = [split.get("query_limit") for split in shown]
    if any(limit is None for limit in limits):
        return [
            "A query limit: nothing in the secure world counts how often the device's owner asks, so that the budgets "
            "are an assumption."
        ]
    if not limits:
        return []
    largest = max(limit for limit in limits if limit is not None)
    if largest > most:
        tried = f"up to {count(most)} were tried"
        return [f"As many label queries as a device answers: {count(largest)}; {tried}."]
    return []


def _of(split: Mapping[str, Any]) -> list[str]:
    stealing, found = split["stealing"], []
    found.append(f"Side channels: {clean(split['assets']['side_channels'])}.")
    if split["modelled"]["transfer"] == "stream":
        found.append(
            "Streamed transfer: the modelled time is of a plan that computes as taps arrive; the trusted application "
            "of this release takes taps one by one and computes after the last."
        )
    steps = stealing["attacker"].get("steps")
    if isinstance(steps, int) and steps < USUAL_STEPS:
        found.append(
            f"Thieves who train as long as usual ({USUAL_STEPS} steps): these trained {count(steps)} at least."
        )
    if stealing["seeds"] < 3:
        found.append(
            f"The spread between attackers: {count(stealing['seeds'])} independent attacker"
            f"{'' if stealing['seeds'] == 1 else 's'}, which intervals hardly cover."
        )
    if stealing["membership"] is None:
        found.append(f"Membership on the visible part: {clean(stealing['membership_reason'])}.")
    else:
        found.append("Membership with shadow models, and through the authorised answers.")
    open_keys = [f"{row['key']} {row['question']}" for row in split["checklist"] if row["answer"] == "not provided"]
    if open_keys:
        found.append(f"Checklist, not provided: {clean('; '.join(open_keys))}")
    return [*found, *(f"{clean(note)[:1].upper()}{clean(note)[1:]}." for note in stealing["notes"])]
