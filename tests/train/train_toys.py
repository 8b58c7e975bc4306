"""Small records, networks and watchers for the tests of training, defences and recipes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.train import Context, Factory, Schedule

FEATURES, CLASSES = 6, 2


def blobs(count: int, seed: int = 0, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Two Gaussian classes around (+1, ..., +1) and (-1, ..., -1)."""
    y = torch.arange(count) % CLASSES
    x = (2.0 * y - 1.0)[:, None] + spread * torch.randn(count, FEATURES, generator=Seed(seed).torch())
    return x, y


def memberships(models: int, count: int, seed: int = 0, share: float = 0.5) -> Tensor:
    """Each model trains on a random share of the records, never on none."""
    drawn = torch.rand(models, count, generator=Seed(seed).child("members").torch()) < share
    drawn[:, :2] = True
    return drawn


def linear() -> nn.Module:
    return nn.Linear(FEATURES, CLASSES)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def double() -> nn.Module:
    return perceptron().double()


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES))


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def context(
    factory: Factory, x: Tensor, y: Tensor, members: Tensor, schedule: Schedule, *, seed: int = 0, **more: Any
) -> Context:
    seeds = tuple(Seed(seed).child("model", s) for s in range(len(members)))
    return Context(factory, x, y, members, CLASSES, seeds, schedule, **more)


class Interrupted(Exception):
    """Stands for Ctrl-C in the middle of training."""


class Interrupting(Watcher):
    """Raises at the given step of tasks whose name ends in `task`."""

    def __init__(self, at: int, task: str = "") -> None:
        self.at, self.task = at, task

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        if done == self.at and task.endswith(self.task):
            raise Interrupted

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        pass


class Recording(Watcher):
    """Remembers every step and event."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((task, done, total))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        self.events.append((name, fields))
