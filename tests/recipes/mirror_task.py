"""A small trained network on digits and the private task to mirror it with."""

from functools import lru_cache

import torch
from torch import nn

from edgeward.core.randomness import Seed
from edgeward.data import Records, load
from edgeward.graph import capture, fold_batch_norm
from edgeward.graph.fold import remove_identities
from edgeward.train import Schedule, train_many
from edgeward.train.population import build
from edgeward.train.task import Task


def net():
    """Three stages at 8, 4 and 2 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


@lru_cache
def digits(role):
    """The records of one role as images [1, 8, 8]."""
    records = load("digits", seed=Seed(0)).roles[role]
    return Records(records.x.view(-1, 1, 8, 8), records.y, role)


@lru_cache
def victim():
    records = digits("train")
    members = torch.ones(1, len(records), dtype=torch.bool)
    schedule = Schedule(epochs=12, batch=50, rate=0.01, decay="cosine")
    population = train_many(net, records.x, records.y, members, classes=10, seed=Seed(3), schedule=schedule)
    return remove_identities(fold_batch_norm(capture(population.member(0, net), (1, 8, 8))))


@lru_cache
def public():
    """A backbone that never saw a digit."""
    return remove_identities(fold_batch_norm(capture(build(net, Seed(77)).eval(), (1, 8, 8))))


def task(epochs=8, directory=None, rate=0.01):
    train, validation = digits("train"), digits("validation")
    return Task(
        factory=net,
        x=train.x,
        y=train.y,
        members=torch.ones(1, len(train), dtype=torch.bool),
        classes=10,
        seed=Seed(5),
        schedule=Schedule(epochs=epochs, batch=50, rate=rate, decay="cosine"),
        validation=(validation.x, validation.y),
        input_shape=(1, 8, 8),
        directory=directory,
        tag="toy",
    )
