"""Magnitude pruning and retraining: the compression whose leakage Gecko and Yuan & Zhang measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from edgeward.core.randomness import Seed
from edgeward.graph import capture
from edgeward.recipes.recipe import RECIPES, Recipe, require
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.population import build
from edgeward.train.task import Task, Trained
from edgeward.transforms.leftover import sentence
from edgeward.transforms.prune import Masked, magnitude_masks, weight_keys


@RECIPES.register("prune_retrain")
@final
@dataclass(frozen=True)
class PruneRetrain(Recipe):
    """Train dense, remove the smallest weights of each layer, retrain the rest; float32 weights, mostly zero."""

    slug: ClassVar[str] = "prune_retrain"
    aimed_at: ClassVar[str] = "mislabelled"
    summary: ClassVar[str] = "train dense, drop the smallest weights of each layer, retrain the rest"
    paper: ClassVar[str] = (
        "Han et al. NeurIPS'15; leakage: Yuan & Zhang, USENIX Security'22; Duddu et al. 2020, claim (a)"
    )

    sparsity: float = 0.7
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse a sparsity that leaves nothing."""
        require(self.slug, sparsity_from_0_to_below_1=0 <= self.sparsity < 1)

    def run(self, task: Task) -> Trained:
        """Train, prune, retrain for half the epochs at half the rate."""
        network = capture(build(task.factory, Seed(0)), tuple(task.x.shape[1:]))
        population, _ = task.stage(
            "dense", task.initialise(task.factory), task.context(task.factory, "dense"), [CrossEntropy()]
        )
        keys, left = weight_keys(network, population)
        masks = magnitude_masks(population, self.sparsity, keys=keys)
        base = self.schedule or task.schedule
        schedule = replace(base, epochs=max(1, base.epochs // 2), rate=base.rate / 2)
        context = task.context(task.factory, "pruned", schedule)
        population, claims = task.stage("pruned", population, context, [CrossEntropy(), Masked(masks)])
        return Trained(population, task.factory, claims, trainings=2, notes=sentence(self.slug, left))

    def passes(self, schedule: Schedule) -> float:
        """Count both trainings; the second takes half the epochs."""
        return schedule.epochs + (self.schedule or schedule).epochs / 2

    def space(self) -> tuple[Recipe, ...]:
        """Vary the sparsity: leakage rises at moderate and falls at high sparsity."""
        return tuple(replace(self, sparsity=sparsity) for sparsity in (0.5, 0.7, 0.9, 0.95))
