"""The table of candidates that `protect`, `audit` and `report` print, from a report's plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from edgeward.cli.reply import table
from edgeward.core.units import human

_COLUMNS = ("recipe", ">test accuracy", ">TPR at 1 % FPR [95 %]", ">AUC", "attack", ">file", ">bits/weight", "state")


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
