"""DP-SGD: the one recipe with a proof, through Opacus."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

from edgeward.defenses.dp_sgd import DpSgd
from edgeward.recipes.recipe import RECIPES, Recipe
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.population import Factory
from edgeward.train.task import Task, Trained


@RECIPES.register("dp_sgd")
@final
@dataclass(frozen=True)
class DpSgdTraining(Recipe):
    """Train under (epsilon, delta)-DP and print the membership bound it implies; a low noise is a heuristic defence."""

    slug: ClassVar[str] = "dp_sgd"
    aimed_at: ClassVar[str] = "twins"
    summary: ClassVar[str] = (
        "per-sample clipping and noise through Opacus, with (epsilon, delta) and the bound it implies"
    )
    paper: ClassVar[str] = "Abadi et al. CCS'16; as a heuristic: Aerni, Zhang, Tramèr, CCS'24"

    noise: float = 1.0
    clip: float = 1.0
    epochs: int = 30
    rate: float = 0.5
    delta: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that DP-SGD or the schedule refuses."""
        DpSgd(self.noise, self.clip, self.delta)
        Schedule(epochs=self.epochs, rate=self.rate)

    def run(self, task: Task) -> Trained:
        """Train each model with its own noise; what will be spent is said, or refused, before anything is trained."""
        part = DpSgd(self.noise, self.clip, self.delta)
        factory = part.wrap_factory(task.factory)
        schedule = Schedule(self.epochs, task.schedule.batch, self.rate, "sgd", momentum=0.0)
        context = task.context(factory, "dp", schedule)
        foreseen = part.spent(context)
        if math.isfinite(foreseen.epsilon):
            task.watcher.event("foreseen", {"recipe": self.name, **vars(foreseen)})
        population, claims = task.stage("dp", task.initialise(factory), context, [CrossEntropy(), part])
        return Trained(population, factory, claims)

    def passes(self, schedule: Schedule) -> float:
        """Count its own epochs; each costs more than one of plain training."""
        return float(self.epochs)

    def structure(self, factory: Factory) -> Factory:
        """Return the structure without BatchNorm."""
        return DpSgd(self.noise, self.clip).wrap_factory(factory)

    def space(self) -> tuple[Recipe, ...]:
        """Vary the noise from strict to heuristic."""
        return tuple(replace(self, noise=noise) for noise in (0.3, 1.0, 2.0))
