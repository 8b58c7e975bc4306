"""The tables of candidates and of splits that the verbs print, from a report's plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from edgeward.cli.reply import table
from edgeward.core.units import human
from edgeward.report.splits.verdict import worst
from edgeward.report.wording import NOT_MEASURED, finite, interval, percent

_COLUMNS = ("recipe", ">test accuracy", ">TPR at 1 % FPR [95 %]", ">AUC", "attack", ">file", ">bits/weight", "state")

_SPLIT_COLUMNS = (
    "split",
    ">accuracy",
    ">direct use",
    ">stealing ratio",
    "confidential",
    ">secure RAM",
    ">overhead",
    "strategy",
)


def candidate_table(report: Mapping[str, Any]) -> Table:
    """Return one row for each candidate, and one for each recipe that failed."""
    rows = [_row(candidate) for candidate in report.get("candidates", [])]
    rows += [_failed(entry) for entry in report.get("failed", [])]
    return table(_COLUMNS, rows)


def _failed(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(entry.get("recipe", "?")), *["-"] * 6, f"failed: {entry.get('reason', '?')}")


def _row(candidate: Mapping[str, Any]) -> tuple[str, ...]:
    attack, cost = candidate.get("strongest_attack"), candidate.get("cost", {})
    leak = area = name = "not attacked"
    if attack:
        rate = attack["tpr_at_1pct"]
        low, high = rate["interval"]
        leak = f"{_percent(rate['value'])} [{_percent(low)}, {_percent(high)}]"
        area, name = f"{attack['auc']['value']:.3f}", str(attack["name"])
    weights = cost.get("binary_weights") or 0
    bits = f"{8 * cost['binary_weight_bytes'] / weights:.2f}" if weights and cost.get("binary_weight_bytes") else "-"
    size = cost.get("file_bytes")
    return (
        str(candidate.get("recipe", "?")),
        _percent(candidate["test_accuracy"]),
        leak,
        area,
        name,
        "-" if size is None else human(size, "B"),
        bits,
        _state(candidate),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _state(candidate: Mapping[str, Any]) -> str:
    if candidate.get("feasible") is False:
        return "over budget: " + "; ".join(map(str, candidate.get("violations", [])))
    states = {"chosen": "chosen", "on_frontier": "on frontier"}
    return ", ".join(word for key, word in states.items() if candidate.get(key))


def split_table(report: Mapping[str, Any]) -> Table:
    """Return one row for each split that `mirror` measured."""
    rows = [_split_row(split) for split in report["splits"]]
    return table(_SPLIT_COLUMNS, rows, title=f"splits for {report['device']}")


def _split_row(split: Mapping[str, Any]) -> tuple[str, ...]:
    modelled, direct = split["modelled"], split["stealing"]["direct_accuracy"]
    stolen = worst(split)["ratio_to_black_box"]
    low, high = interval(stolen)
    value = finite(stolen["value"])
    bounds = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return (
        split["name"],
        percent(split["authorised_accuracy"]["value"]),
        "no answer" if direct is None else percent(direct["value"]),
        NOT_MEASURED if value is None else f"{value:.2f}{bounds}",
        "yes, against these attacks" if split["confidential"] else "no",
        f"{human(modelled['secure_ram_bytes'], 'B')} (modelled)",
        f"{percent(modelled['overhead'], 2)} (modelled)",
        split["describe"],
    )
