"""Planting: records made for an audit, each kind from its own sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from edgeward.core.randomness import Seed
from edgeward.core.record_kind import RecordKind
from edgeward.data.records import Records
from edgeward.data.splits import Splits

NEARNESS: Final = 0.1
"""How far a near-duplicate stands from its source: noise in each feature, as a share of the feature's deviation."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """Records of one planted kind; `group` [m] numbers those that share their membership, from 0."""

    kind: RecordKind
    records: Records
    group: Int64[Tensor, " m"]

    def __len__(self) -> int:
        """Return m."""
        return len(self.records)


def plant(splits: Splits, kinds: Sequence[RecordKind], seed: Seed) -> tuple[Planted, ...]:
    """Return records of each planted kind of `kinds`, equally many of each, from disjoint canary sources.

    The sources of `splits` are shared out: with `c` of them and kinds that take w_k sources a record, each kind gets
    c / sum(w_k) records (c where none takes any). A wrong label is the one that the canary of the same source carries.
    Every label is one that some training record has. Equal seeds give equal records.
    """
    chosen = [kind for kind in kinds if kind.planted]
    available = len(splits.canary_sources)
    if not chosen or not available:
        return ()
    weight = sum(kind.sources for kind in chosen)
    count = math.floor(available / weight) if weight else available
    count -= count % max(kind.group for kind in chosen)
    found, start = [], 0
    for kind in chosen:
        taken = round(count * kind.sources)
        own = torch.arange(start, start + taken)
        x, y = _MADE[kind.slug](splits, own, count, seed.child("planted", kind.slug))
        found.append(Planted(kind, Records(x, y, kind.slug), torch.arange(len(y)) // kind.group))
        start += taken
    return tuple(found)


_Made = tuple[Float32[Tensor, "m ..."], Int64[Tensor, " m"]]


def _mislabelled(splits: Splits, own: Tensor, count: int, seed: Seed) -> _Made:
    return splits.canaries.x[own], splits.canaries.y[own]


def _twins(splits: Splits, own: Tensor, count: int, seed: Seed) -> _Made:
    wrong = splits.canaries.y[own]
    return _pairs(splits, own, wrong, wrong, seed)


def _half_wrong_twins(splits: Splits, own: Tensor, count: int, seed: Seed) -> _Made:
    right = splits.train.y[splits.canary_sources[own]]
    return _pairs(splits, own, splits.canaries.y[own], right, seed)


def _pairs(splits: Splits, own: Tensor, first: Tensor, second: Tensor, seed: Seed) -> _Made:
    """Return each source and its near-duplicate one after the other, with their labels."""
    x = splits.canaries.x[own]
    spread = splits.train.x.std(0, correction=0)
    low, high = splits.train.x.amin(0), splits.train.x.amax(0)
    near = x + NEARNESS * spread * torch.randn(x.shape, generator=seed.torch())
    near = torch.minimum(torch.maximum(near, low), high)
    return torch.stack([x, near], 1).flatten(0, 1), torch.stack([first, second], 1).flatten()


def _out_of_distribution(splits: Splits, own: Tensor, count: int, seed: Seed) -> _Made:
    """Draw each feature from the training records on its own, and each label from the classes that occur."""
    generator = seed.torch()
    flat = splits.train.x.flatten(1)
    row = torch.randint(0, len(flat), (count, flat.shape[1]), generator=generator)
    x = flat.gather(0, row).reshape(count, *splits.train.shape)
    present = splits.train.classes
    return x, present[torch.randint(0, len(present), (count,), generator=generator)]


_MADE: Mapping[str, Callable[[Splits, Tensor, int, Seed], _Made]] = {
    "mislabelled": _mislabelled,
    "twins": _twins,
    "half-wrong-twins": _half_wrong_twins,
    "out-of-distribution": _out_of_distribution,
}
