"""The cheap pass finds the records that plain training gives away."""

import torch
from torch import nn

from edgeward.core.progress import Silent
from edgeward.core.randomness import Seed
from edgeward.data.making import make_splits
from edgeward.data.records import Records
from edgeward.measure.exposure import LEAST, exposure, most_exposed
from edgeward.train.part import Schedule


def test_records_with_a_wrong_label_are_found_first():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    x = torch.randn(240, 30, generator=generator) * 0.6
    x[:, 0] += 4.0 * y - 2.0
    odd = torch.arange(10, 130, 10)
    y[odd] = 1 - y[odd]
    records = Records(x, y, "blobs")
    members, others = records.subset(range(160)), records.subset(range(160, 240))
    validation, shadow = others.subset(range(20)), others.subset(range(20, 40))
    rest = others.subset(range(40, 80))
    splits = make_splits(
        members, rest, validation=validation, shadow=shadow, canaries=0, classes=2, seed=Seed(0), name="odd"
    )

    def build():
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))

    schedule = Schedule(epochs=30, batch=40, rate=1e-2)
    found = most_exposed(build, splits, schedule, Seed(5), Silent())
    assert len(found) == LEAST
    assert len(set(found.tolist()) & set(odd.tolist())) == len(odd)
    moved = exposure(build, splits, schedule, Seed(5))
    assert float(moved[odd].mean()) > 2 * float(moved.mean())
