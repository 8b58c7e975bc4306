"""The frontier: non-dominated candidates under a budget, its hyper-volume, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from edgeward.core.budget import Budget
from edgeward.core.candidate import Candidate
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.measurement import Measurement
from edgeward.core.units import human


@final
@dataclass(frozen=True)
class Measured:
    """A candidate with its measurement."""

    candidate: Candidate
    measurement: Measurement


def objectives(measurement: Measurement) -> tuple[float, float, float]:
    """Return (error, bytes, leakage), each to be minimised; leakage is the strongest attack's TPR at 1 % FPR.

    A candidate that was not attacked counts as leaking everything: what was not measured is never preferred.
    """
    strongest = measurement.strongest_attack
    leakage = strongest.tpr_at_1pct.value if strongest else 1.0
    return 1.0 - measurement.test_accuracy.value, measurement.cost.value("file_bytes"), leakage


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether `a` is nowhere worse and somewhere better than `b` (all minimised).

    >>> dominates((1, 1), (1, 2)), dominates((1, 1), (1, 1)), dominates((0, 3), (1, 2))
    (True, False, False)
    """
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other point dominates; of equal points, all stay."""
    return [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume dominated by `points` up to `reference` (all minimised), exact by slicing the last axis.

    Cost: O(n^d) for n points in d dimensions; fronts here hold tens of points in three dimensions.

    >>> hypervolume([(0.0, 1.0), (1.0, 0.0)], (2.0, 2.0))
    3.0
    """
    inside = [tuple(p) for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    inside.sort(key=lambda p: p[-1])
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(p[0] for p in inside))
    volume = 0.0
    for i, point in enumerate(inside):
        top = inside[i + 1][-1] if i + 1 < len(inside) else reference[-1]
        if top > point[-1]:
            volume += (top - point[-1]) * hypervolume([p[:-1] for p in inside[: i + 1]], reference[:-1])
    return volume


@final
@dataclass(frozen=True)
class Frontier:
    """All measured candidates under one budget."""

    measured: tuple[Measured, ...]
    budget: Budget

    def feasible(self) -> tuple[Measured, ...]:
        """Return the candidates that meet every limit of the budget."""
        limits = self.budget.limits()
        return tuple(m for m in self.measured if all(not lim.miss(m.measurement.value(lim.name)) for lim in limits))

    def members(self) -> tuple[Measured, ...]:
        """Return the feasible candidates that no feasible candidate dominates."""
        feasible = self.feasible()
        return tuple(feasible[i] for i in non_dominated([objectives(m.measurement) for m in feasible]))

    def on_frontier(self, candidate: Candidate) -> bool:
        """Return whether `candidate` is feasible and not dominated."""
        return any(m.candidate.digest == candidate.digest for m in self.members())

    def hypervolume(self) -> float:
        """Share of the box (error 1, largest file, leakage 1) that the frontier dominates, in [0, 1]."""
        members = self.members()
        if not members:
            return 0.0
        largest = max(m.measurement.cost.value("file_bytes") for m in self.measured) * 1.05
        scaled = [(e, size / largest, leak) for e, size, leak in (objectives(m.measurement) for m in members)]
        return hypervolume(scaled, (1.0, 1.0, 1.0 + 1e-9))

    def choose(self) -> Measured:
        """Return the least leaking feasible candidate within one point of the best feasible accuracy; ties: smaller.

        Accuracy here is the validation accuracy, so that the holdout only reports. Raises `NoFeasibleCandidate`.
        """
        feasible = self.feasible()
        if not feasible:
            raise self._nearest_miss()
        best = max(m.measurement.validation_accuracy.value for m in feasible)
        close = [m for m in feasible if m.measurement.validation_accuracy.value >= best - 0.01]

        def preference(m: Measured) -> tuple[float, float, str]:
            _, size, leakage = objectives(m.measurement)
            return leakage, size, m.candidate.digest

        return min(close, key=preference)

    def _nearest_miss(self) -> NoFeasibleCandidate:
        if not self.measured:
            return NoFeasibleCandidate(
                "nothing was measured", expected="at least one candidate", came="none", fix="name at least one recipe"
            )
        limits = self.budget.limits()

        def misses(m: Measured) -> list[tuple[float, int]]:
            return [(lim.miss(m.measurement.value(lim.name)), i) for i, lim in enumerate(limits)]

        nearest = min(self.measured, key=lambda m: sum(miss for miss, _ in misses(m)))
        by, index = max(misses(nearest))
        binding = limits[index]
        value = nearest.measurement.value(binding.name)
        shown = f"{value:.2%}" if binding.unit == "fraction" else human(value, binding.unit)
        return NoFeasibleCandidate(
            f"none of {len(self.measured)} measured candidates meets the budget",
            expected=str(binding),
            came=f"nearest miss: {nearest.candidate.recipe} with {binding.name} = {shown} ({by:.0%} off)",
            fix=f"relax {binding.name}, add recipes, or widen their search space",
        )
