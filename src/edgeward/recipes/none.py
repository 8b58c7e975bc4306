"""No defence: the network as it is, trained as asked. Every table needs this row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from edgeward.recipes.recipe import RECIPES, Recipe
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.task import Task, Trained


@RECIPES.register("none")
@final
@dataclass(frozen=True)
class Undefended(Recipe):
    """Train to the end of the schedule and ship float32 weights."""

    slug: ClassVar[str] = "none"
    aimed_at: ClassVar[str] = "mislabelled"
    summary: ClassVar[str] = "the network as it is: full precision, full schedule"
    paper: ClassVar[str] = "baseline"

    schedule: Schedule | None = None

    def run(self, task: Task) -> Trained:
        """Train with cross-entropy."""
        context = task.context(task.factory, "dense", self.schedule)
        population, claims = task.stage("dense", task.initialise(task.factory), context, [CrossEntropy()])
        return Trained(population, task.factory, claims)
