"""The records of the benchmark mpc-xray, and how their copies vary in training."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.xray_candidates import SIZE
from edgeward.core import Seed
from edgeward.data import load
from edgeward.train.part import Batch, Context, Part

CLASSES = 2


def records(part: str, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Return images [n, 1, size, size] and labels of "train", "validation" or "test".

    The test part is the source's own, repeats dropped.
    """
    splits = load("pneumonia_mnist", seed=Seed(0), canaries=0)
    pieces = {"train": [splits.train], "validation": [splits.validation], "test": [splits.holdout, splits.shadow]}[part]
    return larger(torch.cat([p.x for p in pieces]), size), torch.cat([p.y for p in pieces])


def larger(x: Tensor, size: int) -> Tensor:
    """Return images upsampled to `size` pixels, bilinear."""
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def moved(x: Tensor, up: Tensor, left: Tensor) -> Tensor:
    """Return images [n, 1, h, w] moved by whole pixels, one pair [n] for each; edges are repeated."""
    n, _, height, width = x.shape
    row = (torch.arange(height) + up[:, None]).clamp(0, height - 1)
    column = (torch.arange(width) + left[:, None]).clamp(0, width - 1)
    return x[torch.arange(n)[:, None, None], 0, row[:, :, None], column[:, None, :]][:, None]


def varied(x: Tensor, reach: int = 4) -> Tensor:
    """Return images [n, 1, h, w] each mirrored or not, moved, and with other contrast and brightness, at random.

    Moved by up to `reach` pixels both ways, edges repeated; contrast by up to 20 %, brightness by up to 0.1.
    """
    n = len(x)
    up, left = (torch.randint(-reach, reach + 1, (n,)) for _ in range(2))
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(-1), x)
    scale, shift = torch.rand(2, n, 1, 1, 1)
    return moved(x, up, left) * (0.8 + 0.4 * scale) + 0.2 * (shift - 0.5)


@dataclass(frozen=True)
class Varied(Part):
    """Show each image in a new variation (`varied`) every time."""

    slug: ClassVar[str] = "varied"

    def augment(self, context: Context, batch: Batch) -> Batch:
        return Batch(varied(batch.x.flatten(0, 1)).view_as(batch.x), batch.y, batch.index, batch.weight)
