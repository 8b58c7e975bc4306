"""`purchase100_synthetic`: a generator in the shape of Purchase-100, for work without any file."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeward.core.errors import ConfigError
from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.partition import Sizes
from edgeward.data.records import Records

CLASSES: Final = 100
FEATURES: Final = 600
DENSITY: Final = 0.25
"""Share of ones in a prototype."""
FLIP: Final = 0.38
"""Probability that a record's bit differs from its class's prototype.

Measured with a 600-128-100 tanh net, 40 epochs of Adam: 100 % on 4000 members, 78 % on non-members.
"""
LARGEST: Final = 500_000


@DATASETS.register("purchase100_synthetic")
def purchase100_synthetic(request: Request) -> Pools:
    """Return synthetic records: 600 bits, each a flipped copy of one of 100 random prototypes.

    As many records are generated as asked for (default 4000 / 400 / 4000 / 1715); prototypes and noise follow the seed.
    It shares only its shape with Purchase-100; numbers on it say nothing about the real set.
    """
    train, holdout = request.train or 4000, request.holdout or 4000
    sizes = Sizes(train=train, validation=-(-train // 10), holdout=holdout, shadow=-(-3 * holdout // 7))
    total = sizes.train + sizes.validation + sizes.holdout + sizes.shadow
    if min(train, holdout) < 1 or total > LARGEST:
        raise ConfigError(
            "the sizes of purchase100_synthetic are out of range",
            expected=f"positive, at most {LARGEST} records in all roles",
            came=f"train = {train}, holdout = {holdout}",
            fix="give smaller sizes",
        )
    generator = request.seed.child("purchase100_synthetic").numpy()
    prototypes = generator.random((CLASSES, FEATURES)) < DENSITY
    labels = generator.permutation(np.arange(total) % CLASSES)
    flips = generator.random((total, FEATURES), dtype=np.float32) < FLIP
    records = Records.of(prototypes[labels] ^ flips, labels, "purchase100_synthetic")
    note = f"synthetic: {CLASSES} random prototypes, each bit flipped with probability {FLIP}"
    return Pools(records, None, classes=CLASSES, sizes=sizes, notes=(note,))
