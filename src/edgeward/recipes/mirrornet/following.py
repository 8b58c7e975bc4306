"""Training a monitor on images that move: backbone and victim look at every view anew, copies follow the victim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.attacks.extraction.training import Jitter
from edgeward.core.claim import Claim
from edgeward.graph.partition import Cut
from edgeward.train.part import Batch, Context, Loss, Needs, Part
from edgeward.transforms.mirror.features import TapRange
from edgeward.transforms.mirror.monitor import Monitor
from edgeward.transforms.mirror.objective import MirrorObjective
from edgeward.transforms.mirror.plan import COPIES


@final
class Followed(nn.Module):
    """A monitor on rows of taps [n, D] that shows its blocks' results as well: [logits | results of `watched`]."""

    def __init__(self, monitor: Monitor, shapes: Sequence[tuple[int, ...]], watched: Sequence[int]) -> None:
        """Hold the monitor; `shapes` are those of its taps, `watched` the numbers of blocks."""
        super().__init__()
        self.monitor, self.shapes, self.watched = monitor, tuple(shapes), tuple(watched)

    def forward(self, rows: Tensor) -> Tensor:
        """Return one row per record."""
        parts = torch.split(rows, [math.prod(shape) for shape in self.shapes], dim=-1)
        taps = [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        found = self.monitor.results(*taps)
        shown = [self.monitor.answer(found[-1], *taps), *(found[number].flatten(1) for number in self.watched)]
        return torch.cat(shown, 1)


def watched_blocks(monitor: Monitor, at: Sequence[Cut]) -> tuple[int, ...]:
    """Return the copies after which the resolution changes, and the last one: where following is worth its cost."""
    found = []
    for number, block in enumerate(monitor.plan.blocks):
        last = block.stage == len(at) - 1
        if block.kind in COPIES and (last or at[block.stage].shape[1:] != at[block.stage + 1].shape[1:]):
            found.append(number)
    return tuple(found)


@final
@dataclass(frozen=True)
class Following(Part):
    """L = CE + T^2 KL(victim || monitor) + follow sum_k MSE_k / variance_k, on freshly moved and mirrored images.

    `front` gives the taps of images [B, ...], `teacher` the victim's logits and its values at the watched blocks, of
    `sizes` numbers each; `ranges` are the int8 grids of the taps. One model at a time.

    Source: distillation: Hinton et al. 2015; matching of inner values: Romero et al., FitNets, ICLR 2015.
    """

    slug: ClassVar[str] = "following"
    needs: ClassVar[Needs] = Needs(per_sample_loss=False, touches_records_outside_loss=True, feeds_records=False)

    front: nn.Module
    teacher: nn.Module
    ranges: tuple[TapRange, ...]
    sizes: tuple[int, ...]
    jitter: Jitter
    follow: float = 1.0
    temperature: float = 2.0

    @torch.no_grad()
    def augment(self, context: Context, batch: Batch) -> Batch:
        """Move the images, replace them by their taps, and attach what the victim makes of them."""
        images = self.jitter.augment(context, batch).x[0]
        taps, taught = _tuple(self.front(images)), _tuple(self.teacher(images))
        rows = torch.cat([grid.rounded(tap).flatten(1) for tap, grid in zip(taps, self.ranges, strict=True)], 1)
        soft = (taught[-1] / self.temperature).softmax(-1)
        target = torch.cat([soft, *(value.flatten(1) for value in taught[:-1])], 1)
        return replace(batch, x=rows[None], target=target[None])

    def loss(self) -> Loss:
        """Return the loss per sample."""
        answer = MirrorObjective("public", torch.zeros(1, 1, 0, 2), temperature=self.temperature).loss()

        def value(shown: Float[Tensor, "S B D"], batch: Batch, context: Context) -> Tensor:
            wanted = batch.target if batch.target is not None else shown
            logits, *own = torch.split(shown, [context.classes, *self.sizes], dim=-1)
            soft, *theirs = torch.split(wanted, [context.classes, *self.sizes], dim=-1)
            found = answer(logits, replace(batch, target=soft), context)
            for mine, goal in zip(own, theirs, strict=True):
                found = found + self.follow * (mine - goal).square().mean(-1) / goal.var().clamp(min=1e-8)
            return found

        return value

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """State what a frozen public backbone guarantees."""
        return MirrorObjective("public", torch.zeros(1, 1, 0, 2)).statement(context)


def _tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
