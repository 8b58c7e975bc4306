"""Budgets: hard limits on cost, utility and leakage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.core.errors import ConfigError
from edgeward.core.units import human, parse_quantity


@final
@dataclass(frozen=True)
class Limit:
    """One constraint: `name` must stay on its side (`at most` or `at least`) of `bound`, in `unit`."""

    name: str
    bound: float
    unit: str
    side: Literal["at most", "at least"]

    def miss(self, value: float) -> float:
        """Return by how much `value` violates the limit, relative to the bound; 0 when it holds, inf for NaN.

        What was not measured does not meet a limit.
        """
        if math.isnan(value):
            return math.inf
        excess = value - self.bound if self.side == "at most" else self.bound - value
        return max(0.0, excess) / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        """Format as a sentence."""
        shown = f"{self.bound:.2%}" if self.unit == "fraction" else human(self.bound, self.unit)
        return f"{self.name} {self.side} {shown}"


_FIELDS: dict[str, tuple[str, str, Literal["at most", "at least"]]] = {
    "file_bytes": ("file_bytes", "B", "at most"),
    "peak_ram": ("peak_ram_bytes", "B", "at most"),
    "latency": ("device_latency_seconds", "s", "at most"),
    "energy": ("energy_joules", "J", "at most"),
    "macs": ("macs", "", "at most"),
    "accuracy": ("test_accuracy", "", "at least"),
    "tpr_at_1pct": ("tpr_at_1pct", "", "at most"),
    "tpr_at_0_1pct": ("tpr_at_0_1pct", "", "at most"),
    "auc": ("auc", "", "at most"),
}


@final
@dataclass(frozen=True)
class Budget:
    """Hard limits a shipped candidate must meet; None means unlimited.

    Sizes accept '256KiB', times '20ms', energies '5mJ', fractions '1%'. `latency`, `energy` and `peak_ram` are judged
    on the device profile's prediction; `tpr_*` and `auc` on the point estimate of the strongest attack.

    >>> [str(limit) for limit in Budget(file_bytes="64KiB", accuracy=0.9).limits()]
    ['file_bytes at most 64.0 KiB', 'test_accuracy at least 90.00%']
    """

    file_bytes: float | str | None = None
    peak_ram: float | str | None = None
    latency: float | str | None = None
    energy: float | str | None = None
    macs: float | str | None = None
    accuracy: float | str | None = None
    tpr_at_1pct: float | str | None = None
    tpr_at_0_1pct: float | str | None = None
    auc: float | str | None = None

    def __post_init__(self) -> None:
        """Parse every limit once, so that a bad one is reported at once."""
        for name, (_, unit, _side) in _FIELDS.items():
            text = getattr(self, name)
            if text is None:
                continue
            value = parse_quantity(text, unit, name=f"budget.{name}")
            if value < 0 or (name in ("accuracy", "tpr_at_1pct", "tpr_at_0_1pct", "auc") and value > 1):
                raise ConfigError(
                    f"budget.{name} is out of range",
                    expected="a fraction between 0 and 1" if value > 1 else "a non-negative number",
                    came=repr(text),
                    fix=f'write for instance {name} = "1%"' if unit == "" else f"give {name} a positive value",
                )
            object.__setattr__(self, name, value)

    def limits(self) -> tuple[Limit, ...]:
        """Return the constraints that are set."""
        found = []
        for name, (quantity, unit, side) in _FIELDS.items():
            bound = getattr(self, name)
            if bound is not None:
                shown = unit or ("MAC" if name == "macs" else "fraction")
                found.append(Limit(quantity, float(bound), shown, side))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the limits that are set as plain numbers."""
        return {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}
