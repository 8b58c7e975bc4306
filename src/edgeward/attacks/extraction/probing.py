"""What a thief asks: its own records, or inputs that are no records, at random or where an answer tells most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edgeward.core.errors import DataError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records

QUERIES: Mapping[str, str] = {
    "records": "records of the query pool, at random",
    "spread": "records of the pool that lie far apart in the features of the prior (k-center)",
    "margin": "half at random, then the records between whose likeliest classes a first stolen model is least decided",
    "mixtures": "weighted means of two records",
    "noise": "uniform noise in the range of the records",
    "foreign": "records of another origin",
}
"""The ways to choose label queries, by name."""


@final
@dataclass(frozen=True, eq=False)
class Probes:
    """Everything a thief may ask in one pool, and where each kind of input lies in it."""

    pool: Records
    spans: Mapping[str, range]

    @classmethod
    def of(cls, records: Records, queries: Sequence[str], count: int, foreign: Records | None = None) -> Probes:
        """Return `records` with `count` inputs of each kind made in `queries`, and `foreign` records, behind them.

        Raises `DataError` where foreign records have another shape.
        """
        if foreign is not None and foreign.shape != records.shape:
            raise DataError(
                "the thief's foreign records do not fit",
                expected=f"records of shape {list(records.shape)}",
                came=f"{list(foreign.shape)}",
                fix="bring them to the shape of the query pool",
            )
        parts, spans = [records.x], {"records": range(len(records))}
        made = {"mixtures": mixtures, "noise": noise}
        for name in queries:
            if name in made:
                parts.append(made[name](records.x, count, Seed(0).child("probes", name)))
            elif name == "foreign" and foreign is not None:
                parts.append(foreign.x)
            else:
                continue
            start = sum(map(len, parts[:-1]))
            spans[name] = range(start, start + len(parts[-1]))
        x = torch.cat(parts)
        labels = torch.cat([records.y, torch.zeros(len(x) - len(records), dtype=torch.int64)])
        return cls(Records(x, labels, records.name), spans)


def mixtures(x: Float[Tensor, "n ..."], count: int, seed: Seed) -> Float[Tensor, "m ..."]:
    """Return `count` means of two records with weights from 0.3 to 0.7."""
    generator = seed.torch()
    first, second = (torch.randint(len(x), (count,), generator=generator) for _ in range(2))
    share = (0.3 + 0.4 * torch.rand(count, generator=generator)).view(-1, *[1] * (x.dim() - 1))
    return share * x[first] + (1 - share) * x[second]


def noise(x: Float[Tensor, "n ..."], count: int, seed: Seed) -> Float[Tensor, "m ..."]:
    """Return `count` inputs of uniform noise between the smallest and the largest value of `x`."""
    low, high = float(x.min()), float(x.max())
    return low + (high - low) * torch.rand(count, *x.shape[1:], generator=seed.torch())


def spread(features: Float[Tensor, "n F"], count: int, seed: Seed) -> Int64[Tensor, " m"]:
    """Return `count` rows, each as far as possible from those before it (greedy k-center, first at random).

    Source: Gonzalez 1985; as a choice of queries: Sener & Savarese, ICLR 2018.
    """
    scaled = (features - features.mean(0)) / features.std(0, unbiased=False).clamp(min=1e-6)
    chosen = [int(torch.randint(len(scaled), (1,), generator=seed.torch()))]
    distance = (scaled - scaled[chosen[0]]).square().sum(1)
    for _ in range(min(count, len(scaled)) - 1):
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (scaled - scaled[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def undecided(logits: Float[Tensor, "n C"], count: int) -> Int64[Tensor, " m"]:
    """Return the `count` rows with the smallest margin between the two likeliest classes.

    Source: margin sampling, Scheffer et al. 2001.
    """
    top = logits.softmax(-1).topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).argsort()[:count]
