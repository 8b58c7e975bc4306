"""What a strategy that trains learns from: the private records with their labels, or with the victim's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edgeward.core.randomness import Seed
from edgeward.graph.module import to_module
from edgeward.graph.network import Network
from edgeward.recipes.splits.split import Subject


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """Records with labels and with the victim's logits, in batches of a fixed order.

    Shapes: `x` [n, ...], `y` [n], `logits` [n, classes].
    """

    x: Float[Tensor, "n ..."]
    y: Int64[Tensor, " n"]
    logits: Float[Tensor, "n classes"]
    seed: Seed
    batch: int = 32

    @classmethod
    def of(cls, subject: Subject, name: str) -> Lesson:
        """Return the subject's labelled records; without any, its calibration records as the victim labels them."""
        x = subject.calibration if subject.records is None else subject.records[0]
        logits = logits_of(subject.victim, x)
        y = logits.argmax(1) if subject.records is None else subject.records[1].long()
        return cls(x, y, logits, subject.seed.child(name))

    def batches(self, epochs: int) -> Iterator[Tensor]:
        """Yield the rows of each batch, shuffled anew in every epoch."""
        for epoch in range(epochs):
            order = torch.randperm(len(self.x), generator=self.seed.child("epoch", epoch).torch())
            yield from torch.split(order, self.batch)


@torch.no_grad()
def logits_of(network: Network, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
    """Return the last output of `network` for every record."""
    module = to_module(network)
    found = [module(part) for part in torch.split(x, 500)]
    return torch.cat([part[-1] if isinstance(part, tuple) else part for part in found])
