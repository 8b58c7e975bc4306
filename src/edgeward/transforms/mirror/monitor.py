"""`Monitor`: the small network of the secure world that reads taps of the backbone and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.graph.capture import capture
from edgeward.graph.fold import fold_batch_norm, remove_identities
from edgeward.graph.module import to_module
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, subnetwork
from edgeward.transforms.mirror.adapted import Adapted
from edgeward.transforms.mirror.blocks import Mirrored
from edgeward.transforms.mirror.plan import COPIES, MonitorPlan, tap_shape


@final
class Monitor(nn.Module):
    """A companion monitor: one block per entry of its plan, one way, and a head.

    Taps come in the plan's order (images [n, C, H, W], vectors [n, F]; for a residual head the backbone's logits last);
    the answer is logits [n, classes]. Copies of stages start from the victim's weights and have its head where the last
    stage is copied; everything else is drawn anew from torch's generator.

    Source: Liu, Luo, Duan, Zhou, Xu, MirrorNet, ICCAD 2023, abstract (a lightweight branch that watches intermediate
    results and rectifies the answer); the block design is ours.
    """

    def __init__(self, plan: MonitorPlan, victim: Network, at: Sequence[Cut], classes: int) -> None:
        """Build the monitor of `plan` for `victim` divided at `at`; raises `ModelError` naming what does not fit."""
        super().__init__()
        problems = plan.fits(at)
        if problems:
            raise ModelError(
                "the monitor does not fit this network:\n    " + "\n    ".join(problems),
                expected=f"stages 0 to {len(at) - 1}: {', '.join(str(cut.shape) for cut in at)}",
                fix="choose other stages, kinds or pools",
            )
        self.plan, self.classes = plan, classes
        blocks: list[nn.Module] = []
        shape: tuple[int, ...] | None = None
        for number, block in enumerate(plan.blocks):
            tap = plan.tap(number)
            if block.kind in COPIES:
                part = subnetwork(victim, (at[block.stage - 1].value,), (at[block.stage].value,))
                rectified = _rectified(victim, at[block.stage - 1])
                own = to_module(part)
                side = {"adapted": 3, "mixed": 1}.get(block.kind)
                blocks.append(Adapted(at[block.stage - 1].shape, rectified, own, side) if side else own)
                shape = at[block.stage].shape
            elif tap is not None:
                blocks.append(Mirrored(block.kind, block.width, tap_shape(at[tap.cut].shape, tap), shape))
                shape = (block.width, *tap_shape(at[tap.cut].shape, tap)[1:])
        self.blocks = nn.ModuleList(blocks)
        last = plan.blocks[-1]
        copied = last.kind in COPIES and last.stage == len(at) - 1
        self.head = (
            to_module(subnetwork(victim, (at[-1].value,), victim.outputs[-1:])) if copied else _head(shape, classes)
        )

    def forward(self, *taps: Tensor) -> Tensor:
        """Return the authorised logits."""
        return self.answer(self.results(*taps)[-1], *taps)

    def answer(self, result: Tensor, *taps: Tensor) -> Tensor:
        """Return the authorised logits from the last block's result."""
        answer: Tensor = self.head(result)
        return answer + taps[-1] if self.plan.head == "residual" else answer

    def results(self, *taps: Tensor) -> list[Tensor]:
        """Return the result of every block, in order."""
        waiting = iter(taps)
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            before = found[-1] if found else None
            if self.plan.chained(number):
                found.append(block(before))
            elif self.plan.blocks[number].kind in COPIES:
                found.append(block(next(waiting)))
            else:
                found.append(block(next(waiting), before))
        return found


def _rectified(network: Network, cut: Cut) -> bool:
    producer = network.producer(cut.value)
    return producer is not None and producer.operator in ("relu", "clip")


def _head(shape: tuple[int, ...] | None, classes: int) -> nn.Module:
    if shape is None or len(shape) == 1:
        return nn.Linear(shape[0] if shape else classes, classes)
    if len(shape) == 2:
        return nn.Sequential(_TokenMean(), nn.Linear(shape[1], classes))
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape[0], classes))


@final
class _TokenMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def tap_shapes(plan: MonitorPlan, at: Sequence[Cut], classes: int) -> tuple[tuple[int, ...], ...]:
    """Return the shape of every input of the monitor, per record."""
    found = tuple(tap_shape(at[tap.cut].shape, tap) for tap in plan.taps)
    return (*found, (classes,)) if plan.head == "residual" else found


def monitor_network(monitor: Monitor, at: Sequence[Cut]) -> Network:
    """Return the monitor as a network with one input per tap, batch normalisation folded in: what ships."""
    captured = capture(monitor, tap_shapes(monitor.plan, at, monitor.classes))
    return remove_identities(fold_batch_norm(captured))


def classes_of(network: Network) -> int:
    """Return the number of classes the last output has."""
    shape = network.values[network.outputs[-1]].shape
    if len(shape) != 1:
        raise ModelError(
            "the network does not end in logits",
            expected="an output of shape [classes]",
            came=str(shape),
            fix="mirror the classifier, without what comes after it",
        )
    return shape[0]
