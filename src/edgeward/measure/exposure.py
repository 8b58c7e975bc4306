"""The most exposed training records, found by a cheap pass of plainly trained models."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from edgeward.attacks.oracle import log_softmax
from edgeward.attacks.statistics import evaluate
from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.data.splits import Splits
from edgeward.measure.membership_design import balanced
from edgeward.train.fit import train_many
from edgeward.train.part import Schedule
from edgeward.train.population import Factory

MODELS: Final = 8
SHARE: Final = 10
"""One record in ten counts as most exposed."""
LEAST: Final = 20


def exposure(factory: Factory, splits: Splits, schedule: Schedule, seed: Seed) -> Float64[Tensor, " n"]:
    """Return per training record how much its membership moves the logit of its label, in plainly trained models.

    `MODELS` models train without any defence, each on a random half of the records: the mean logit-scaled confidence
    of those that saw a record less that of the others. Cost: one batched training of `MODELS` float networks.
    """
    x, y = splits.train.x, splits.train.y
    members = balanced(MODELS, len(x), seed.child("members"))
    models = train_many(factory, x, y, members, classes=splits.classes, seed=seed.child("models"), schedule=schedule)
    logits = models.logits(x).double()
    phi = torch.stack([evaluate("logit", log_softmax(row), y) for row in logits])
    inside = members.double()
    outside = 1 - inside
    return (phi * inside).sum(0) / inside.sum(0) - (phi * outside).sum(0) / outside.sum(0)


def most_exposed(
    factory: Factory, splits: Splits, schedule: Schedule, seed: Seed, watcher: Watcher
) -> Int[Tensor, " e"]:
    """Return the rows of the tenth of the training records (at least `LEAST`) that plain training exposes most.

    The pass has models and memberships of its own: what it finds is not chosen on what the audit then measures. It
    ranks by plain training; a recipe may expose other records more, which is not searched for.
    """
    watcher.step("search for exposed records", 0, 1)
    found = exposure(factory, splits, schedule, seed)
    count = min(len(found), max(LEAST, len(found) // SHARE))
    watcher.step("search for exposed records", 1, 1)
    return torch.sort(found.argsort(descending=True, stable=True)[:count]).values
