"""Short trainings on stored features that tell good strategies from bad ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast, final

import torch
from torch import Tensor

from edgeward.graph.network import Network
from edgeward.graph.partition import stages
from edgeward.recipes.mirrornet.mirroring import CALIBRATION, answers, fit_adapters, teacher_logits
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.fit import fit
from edgeward.train.part import Context, Schedule
from edgeward.train.population import Population, build
from edgeward.train.task import Task
from edgeward.transforms.mirror.features import OnFeatures, features, tap_ranges
from edgeward.transforms.mirror.monitor import Monitor, classes_of, tap_shapes
from edgeward.transforms.mirror.objective import MirrorObjective
from edgeward.transforms.mirror.plan import MonitorPlan, Tap
from edgeward.transforms.mirror.tapped import tapped, with_taps


@final
@dataclass
class FeatureBank:
    """The taps of some training and validation records, each made once and shared by all strategies.

    `backbone` is the frozen one that proxies watch (the victim itself where backbone and monitor would be trained
    together). Memory: 2 bytes per element, tap and record.
    """

    victim: Network
    backbone: Network
    task: Task
    records: int = 2000
    rows: dict[Tap | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose the records and ask the victim once."""
        self.x, self.y = self.task.x[: self.records], self.task.y[: self.records]
        held_out = self.task.validation or (self.x, self.y)
        self.held_x, self.held_y = held_out[0][: self.records], held_out[1][: self.records]
        self.teacher = teacher_logits(self.victim, self.x, 1)
        self.at, self.classes = stages(self.backbone), classes_of(self.victim)

    def of(self, plan: MonitorPlan) -> tuple[Tensor, Tensor]:
        """Return the joined rows [n, D] of a plan's taps for training and validation records."""
        wanted: list[Tap | None] = [*plan.taps, *([None] if plan.head == "residual" else [])]
        parts = [self._rows(tap) for tap in wanted]
        return torch.cat([p[0] for p in parts], -1), torch.cat([p[1] for p in parts], -1)

    def _rows(self, tap: Tap | None) -> tuple[Tensor, Tensor]:
        if tap not in self.rows:
            if tap is None:
                self.rows[tap] = answers(self.backbone, self.x), answers(self.backbone, self.held_x)
            else:
                front = with_taps(self.backbone, self.at, (tap,))
                ranges = tap_ranges(front, self.x[:CALIBRATION])
                made = [features(front, x, ranges)[:, 0] for x in (self.x, self.held_x)]
                self.rows[tap] = made[0], made[1]
        return self.rows[tap]


def proxy_accuracy(bank: FeatureBank, strategy: Strategy, schedule: Schedule) -> float:
    """Return the validation accuracy of a strategy's monitor after a short training on stored features.

    It ranks strategies; it is neither the accuracy that ships nor a statement about security.
    """
    train_rows, held_rows = bank.of(strategy.plan)
    task, plan = bank.task, strategy.plan
    monitor = cast(Monitor, build(lambda: Monitor(plan, bank.victim, bank.at, bank.classes), task.seed.child("proxy")))
    fit_adapters(monitor, tapped(bank.backbone, bank.at, plan, answer=False), bank.victim, stages(bank.victim), task)
    population = Population.stack([OnFeatures(monitor, tap_shapes(plan, bank.at, bank.classes))], task.device)
    members = torch.ones(1, len(bank.y), dtype=torch.bool)
    seeds = (task.seed.child("proxy order"),)
    rows = train_rows[:, None]
    context = Context(
        task.factory, rows, bank.y, members, bank.classes, seeds, schedule, label=f"proxy {strategy.name}"
    )
    fit(population, context, [MirrorObjective("public", bank.teacher, temperature=strategy.temperature, cached=True)])
    found = population.logits(held_rows.float(), chunk=500)[0].cpu().argmax(1)
    return float((found == bank.held_y).float().mean())
