"""What a recipe is given and what it returns: a training task for S sibling models, and the trained population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgeward.core.claim import Claim
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.train.fit import fit
from edgeward.train.part import Context, Part, Schedule
from edgeward.train.population import Factory, Population


@final
@dataclass(frozen=True)
class Task:
    """Train S sibling models on overlapping members of the same records.

    Shapes: `x` [n, ...], `y` [n], `members` [S, n]; model s trains where `members[s]`. The last model is the one that
    ships, the others are audited; all go through the same recipe. `directory` keeps finished stages for a rerun.
    """

    factory: Factory
    x: Float[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    members: Bool[Tensor, "S n"]
    classes: int
    seed: Seed
    schedule: Schedule = field(default_factory=Schedule)
    validation: tuple[Float[Tensor, "v ..."], Int[Tensor, " v"]] | None = None
    input_shape: tuple[int, ...] = ()
    watcher: Watcher = field(default_factory=Silent)
    label: str = "train"
    directory: Path | None = None
    tag: str = ""
    device: str = "cpu"

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """One seed per model: initial weights and data order depend on nothing else."""
        return tuple(self.seed.child("model", s) for s in range(len(self.members)))

    def context(self, factory: Factory, stage: str, schedule: Schedule | None = None) -> Context:
        """Return a fresh context of one stage."""
        return Context(
            factory=factory,
            x=self.x,
            y=self.y,
            members=self.members,
            classes=self.classes,
            seeds=tuple(seed.child(stage) for seed in self.seeds),
            schedule=schedule or self.schedule,
            validation=self.validation,
            watcher=self.watcher,
            label=f"{self.label}: {stage}",
        )

    def initialise(self, factory: Factory) -> Population:
        """Build the S models of one structure."""
        return Population.initialise(factory, self.seeds, self.device)

    def stage(
        self, stage: str, population: Population, context: Context, parts: Sequence[Part]
    ) -> tuple[Population, tuple[Claim, ...]]:
        """Train one stage, or read its result when a former run finished it; returns also the parts' claims."""
        finished = None if self.directory is None else self.directory / f"{stage}.{self.tag}.safetensors"
        if finished is not None and finished.exists():
            population.load(finished)
        else:
            running = None if self.directory is None else self.directory / f"{stage}.running.safetensors"
            fit(population, context, parts, checkpoint=running, tag=f"{self.tag}/{stage}")
            if finished is not None:
                finished.parent.mkdir(parents=True, exist_ok=True)
                population.save(finished)
        return population, tuple(claim for part in parts for claim in part.statement(context))


@final
@dataclass(frozen=True)
class Trained:
    """A trained population, the factory of its final structure, what it cost and what its parts state.

    `trainings` counts trainings of one model, teachers included.
    """

    population: Population
    factory: Factory
    claims: tuple[Claim, ...] = ()
    trainings: int = 1
    notes: tuple[str, ...] = ()
