"""Integer networks: post-training int8, and quantisation-aware training at k bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from edgeward.recipes.recipe import RECIPES, Recipe, require
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.population import Factory
from edgeward.train.task import Task, Trained
from edgeward.transforms.leftover import account
from edgeward.transforms.quantize import PostTraining, QuantizeAware, calibrate
from edgeward.transforms.transfer import transfer
from edgeward.transforms.transform import FreshScales, refresh, transform_population


@RECIPES.register("int8")
@final
@dataclass(frozen=True)
class PostTrainingInt8(Recipe):
    """Train in float, then round weights per channel and activations per tensor to 8 bits."""

    slug: ClassVar[str] = "int8"
    aimed_at: ClassVar[str] = "mislabelled"
    summary: ClassVar[str] = "float training, then post-training int8 (s8 weights per channel, u8 activations)"
    paper: ClassVar[str] = "Jacob et al. CVPR'18"

    calibration: int = 256
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse an empty calibration."""
        require(self.slug, calibration_at_least_1=self.calibration >= 1)

    def run(self, task: Task) -> Trained:
        """Train, calibrate each model on its own first training records, freeze."""
        notes = account(PostTraining(), task.factory, tuple(task.x.shape[1:]), self.slug)
        context = task.context(task.factory, "dense", self.schedule)
        population, claims = task.stage("dense", task.initialise(task.factory), context, [CrossEntropy()])
        population, factory = transform_population(population, task.factory, PostTraining())
        calibrate(population, task.x, rows=_own_records(task.members, self.calibration))
        return Trained(population, factory, claims, notes=notes)

    def structure(self, factory: Factory) -> Factory:
        """Return the quantised structure."""
        return PostTraining().wrap(factory)


def _own_records(members: Bool[Tensor, "S n"], count: int) -> Int[Tensor, "S k"]:
    """Return the first `count` training records of each model, fewer where a model has fewer: equally many of each."""
    count = min(count, int(members.sum(1).min()))
    return torch.stack([own.nonzero().squeeze(1)[:count] for own in members])


@RECIPES.register("qat")
@final
@dataclass(frozen=True)
class QuantizationAware(Recipe):
    """Train with fake-quantised weights and activations; weights of 2 to 8 bits in the shipped file."""

    slug: ClassVar[str] = "qat"
    aimed_at: ClassVar[str] = "mislabelled"
    summary: ClassVar[str] = "quantisation-aware training at k bits"
    paper: ClassVar[str] = "Jacob et al. CVPR'18; DoReFa, Zhou et al. 2016"

    weight_bits: int = 4
    activation_bits: int = 8
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse widths that no layer has."""
        QuantizeAware(self.weight_bits, self.activation_bits)

    def run(self, task: Task) -> Trained:
        """Train dense, then fine-tune the quantised network for half the epochs."""
        transform = QuantizeAware(self.weight_bits, self.activation_bits)
        notes = account(transform, task.factory, tuple(task.x.shape[1:]), self.slug)
        dense, _ = task.stage(
            "dense", task.initialise(task.factory), task.context(task.factory, "dense"), [CrossEntropy()]
        )
        factory = self.structure(task.factory)
        population = task.initialise(factory)
        transfer(dense, population)
        base = self.schedule or task.schedule
        context = task.context(factory, "quantized", replace(base, epochs=max(1, base.epochs // 2), rate=base.rate / 2))
        population, claims = task.stage("quantized", population, context, [CrossEntropy(), FreshScales()])
        refresh(population)
        return Trained(population, factory, claims, trainings=2, notes=notes)

    def structure(self, factory: Factory) -> Factory:
        """Return the quantised structure."""
        return QuantizeAware(self.weight_bits, self.activation_bits).wrap(factory)

    def passes(self, schedule: Schedule) -> float:
        """Count both trainings; the second takes half the epochs."""
        return schedule.epochs + (self.schedule or schedule).epochs / 2

    def space(self) -> tuple[Recipe, ...]:
        """Vary the bits of the weights."""
        return tuple(replace(self, weight_bits=bits) for bits in (2, 3, 4, 8))
