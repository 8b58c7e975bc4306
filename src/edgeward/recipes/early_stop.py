"""Early stopping: the cheapest defence, and the baseline every other must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from edgeward.defenses.early_stopping import EarlyStopping
from edgeward.recipes.recipe import RECIPES, Recipe, require
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.task import Task, Trained


@RECIPES.register("early_stop")
@final
@dataclass(frozen=True)
class EarlyStop(Recipe):
    """Train until the validation loss stops falling; ship float32 weights."""

    slug: ClassVar[str] = "early_stop"
    aimed_at: ClassVar[str] = "twins"
    summary: ClassVar[str] = "stop each model when its validation loss stops falling"
    paper: ClassVar[str] = "baseline (Song & Mittal, USENIX Security'21, section 5)"

    patience: int = 5
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse a patience that never waits."""
        require(self.slug, patience_at_least_1=self.patience >= 1)

    def run(self, task: Task) -> Trained:
        """Train with patience on the validation split."""
        context = task.context(task.factory, "early", self.schedule)
        parts = [CrossEntropy(), EarlyStopping(self.patience)]
        population, claims = task.stage("early", task.initialise(task.factory), context, parts)
        return Trained(population, task.factory, claims)

    def space(self) -> tuple[Recipe, ...]:
        """Vary the patience."""
        return tuple(EarlyStop(patience, self.schedule) for patience in (2, 5, 10))
