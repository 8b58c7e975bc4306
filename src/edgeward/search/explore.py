"""Explore: measure every proposed candidate once, keep what is measured, go on after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from edgeward.core.budget import Budget
from edgeward.core.candidate import Candidate
from edgeward.core.cost import Cost
from edgeward.core.frontier import Frontier, Measured
from edgeward.core.measurement import Measurement
from edgeward.core.progress import Watcher
from edgeward.search.estimate import Pace
from edgeward.search.failure import Failure


@final
@dataclass(frozen=True)
class Proposal:
    """A candidate with the ways to foresee, measure and recall it.

    `passes` over the training records are what its time is estimated by; only their ratio between proposals counts.
    """

    candidate: Candidate
    foresee: Callable[[], Cost]
    measure: Callable[[], Measurement]
    recall: Callable[[], Measurement | None]
    passes: float = 1.0


def foreseen_violations(budget: Budget, cost: Cost) -> list[str]:
    """Return the limits that a cost known before training already breaks."""
    return [
        f"{limit} (before training: {cost.value(limit.name):.4g} {limit.unit})"
        for limit in budget.limits()
        if limit.name in cost and limit.miss(cost.value(limit.name))
    ]


def explore(
    proposals: Sequence[Proposal],
    budget: Budget,
    watcher: Watcher,
    on_measured: Callable[[Frontier], object],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Frontier, tuple[Failure, ...]]:
    """Measure the proposals in order and return the frontier with the failures.

    Whatever a proposal raises is recorded and the others go on, unless it ends the process (interrupt, `SystemExit`).
    A candidate whose declared cost breaks the budget is not trained, unless nothing else could be measured: then the
    nearest one is, so that the budget's answer rests on a measurement. `on_measured` is called after each candidate.
    The watcher is told about how long the rest takes, by `clock`, once one candidate has been measured in this run.
    """
    measured: list[Measured] = []
    failures: list[Failure] = []
    postponed: list[tuple[float, Proposal, Failure]] = []
    total, pace = len(proposals), Pace(clock)

    def take(proposal: Proposal) -> None:
        found = proposal.recall()
        known = found is not None
        pace.start()
        measured.append(Measured(proposal.candidate, found if found is not None else proposal.measure()))
        if not known:
            pace.finish(proposal.passes)
        watcher.event("measured", {"candidate": proposal.candidate.to_json(), "resumed": known})

    def consider(proposal: Proposal) -> None:
        cost = proposal.foresee()
        broken = foreseen_violations(budget, cost)
        if not broken or proposal.recall() is not None:
            take(proposal)
            return
        misses = [limit.miss(cost.value(limit.name)) for limit in budget.limits() if limit.name in cost]
        why = "not trained, its declared cost breaks the budget: " + "; ".join(broken)
        failures.append(Failure(proposal.candidate.recipe, why))
        postponed.append((sum(misses), proposal, failures[-1]))

    def attempt(action: Callable[[Proposal], None], proposal: Proposal) -> None:
        before = len(measured)
        try:
            action(proposal)
        except Exception as error:  # a recipe may fail in any way, and ends itself alone
            failures.append(Failure.of(proposal.candidate.recipe, error))
            watcher.event("failed", {"recipe": failures[-1].recipe, "reason": failures[-1].short})
        if len(measured) > before:
            on_measured(Frontier(tuple(measured), budget))

    for position, proposal in enumerate(proposals):
        left = pace.left(later.passes for later in proposals[position:] if later.recall() is None)
        watcher.step("candidates", position, total, ", ".join(filter(None, (proposal.candidate.recipe, left))))
        attempt(consider, proposal)
    if not measured and postponed:
        _, nearest, refused = min(postponed, key=lambda entry: entry[0])
        failures = [failure for failure in failures if failure is not refused]
        attempt(take, nearest)
    watcher.step("candidates", total, total, "done")
    return Frontier(tuple(measured), budget), tuple(failures)
