"""Features of a frozen backbone, computed once: every record becomes one row of its taps, as they will arrive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.graph.module import to_module
from edgeward.graph.network import Network
from edgeward.transforms.mirror.monitor import Monitor


@final
@dataclass(frozen=True)
class TapRange:
    """The int8 grid of one tap: lowest and highest value over the calibration records (zero included)."""

    low: float
    high: float

    def rounded(self, values: Tensor) -> Tensor:
        """Return `values` on the grid of 256 levels."""
        scale = max(self.high - self.low, 1e-8) / 255
        zero = round(-128 - self.low / scale)
        return (((values / scale).round() + zero).clamp(-128, 127) - zero) * scale


def tap_ranges(backbone: Network, records: Float[Tensor, "n ..."]) -> tuple[TapRange, ...]:
    """Return the range of every output of `backbone` over calibration records."""
    found = _run(to_module(backbone), records)
    return tuple(TapRange(min(0.0, float(t.min())), max(0.0, float(t.max()))) for t in found)


@torch.no_grad()
def features(
    backbone: Network, records: Float[Tensor, "n ..."], ranges: Sequence[TapRange], *, views: int = 1, chunk: int = 250
) -> Float[Tensor, "n K D"]:
    """Return one row per record and view: all outputs of `backbone`, on their int8 grid, flattened and joined.

    `views` 2 adds each record's mirror image. Values are float16 where every row holds more than 64 numbers.
    Cost: `views` forward passes per record and 2 D bytes for each.
    """
    module = to_module(backbone)
    width = sum(backbone.values[name].elements for name in backbone.outputs)
    rows = torch.empty(len(records), views, width, dtype=torch.float16 if width > 64 else torch.float32)
    for start in range(0, len(records), chunk):
        part = records[start : start + chunk]
        for view in range(views):
            taps = _run(module, part.flip(-1) if view else part)
            flat = [grid.rounded(tap).flatten(1) for tap, grid in zip(taps, ranges, strict=True)]
            rows[start : start + chunk, view] = torch.cat(flat, 1).to(rows.dtype)
    return rows


@torch.no_grad()
def _run(module: nn.Module, records: Tensor) -> tuple[Tensor, ...]:
    found = module(records)
    return found if isinstance(found, tuple) else (found,)


@final
class OnFeatures(nn.Module):
    """A monitor that reads rows of `features` [n, D]."""

    def __init__(self, monitor: Monitor, shapes: Sequence[tuple[int, ...]]) -> None:
        """Hold the monitor; `shapes` are those of its taps in order."""
        super().__init__()
        self.monitor, self.shapes = monitor, tuple(shapes)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the authorised logits."""
        parts = torch.split(rows.float(), [math.prod(shape) for shape in self.shapes], dim=-1)
        taps = [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        answer: Tensor = self.monitor(*taps)
        return answer
