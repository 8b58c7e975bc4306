"""Numbers and colours that figures share: a report read back may hold numbers that no axis can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.report.wording import finite, interval

LINES = ("#3f87d0", "#d9662b", "#1f9e77", "#c264a4", "#b08a12", "#7a6fd0", "#8c6d5a", "#5f7482")
WIDTH = 4.7
_LARGEST = 1e18


def fraction(value: object) -> float | None:
    """Return a number in [0, 1]; a report read back may hold others, which no axis here can show."""
    number = finite(value)
    return number if number is not None and 0 <= number <= 1 else None


def magnitude(value: object) -> float:
    """Return a non-negative number that an axis can hold, 0 for any other."""
    number = finite(value)
    return number if number is not None and 0 <= number <= _LARGEST else 0.0


def leakage_of(candidate: Mapping[str, Any]) -> float | None:
    """Return the TPR at 1 % FPR of the strongest attack on a candidate."""
    strongest = candidate["strongest_attack"]
    return fraction(strongest["tpr_at_1pct"]["value"]) if strongest else None


def span_of(estimate: Mapping[str, Any], value: float) -> tuple[float, float]:
    """Return how far an estimate's interval reaches below and above `value`, as error bars want it."""
    low, high = interval(estimate)
    below = max(0.0, value - low) if low is not None else 0.0
    return min(below, 1.0), min(max(0.0, high - value) if high is not None else 0.0, 1.0)
