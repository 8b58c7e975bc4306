"""What the open scales of the taps say about the records they were calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.attacks.metrics import judged
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.core.measurement import AttackResult
from edgeward.graph.module import to_module


@final
@dataclass(frozen=True)
class RangeLeak:
    """Membership of calibration records, judged by the ranges that the taps' scales and zero points publish.

    A record's score is how near one of its own extremes comes to a published end, in steps of the grid; `attained`
    counts the calibration records that reach an end within half a step, `coincidences` the other records that do.
    """

    ends: int
    attained: int
    coincidences: int
    records: int
    attack: AttackResult

    def to_json(self) -> dict[str, Any]:
        """Return the plain form; it holds no record."""
        plain = {name: getattr(self, name) for name in ("ends", "attained", "coincidences", "records")}
        return {**plain, "attack": self.attack.to_json()}


@torch.no_grad()
def range_leak(
    split: SplitDeployment, calibration: Float[Tensor, "n ..."], others: Float[Tensor, "m ..."]
) -> RangeLeak:
    """Return how well `calibration` is told from `others` by the taps' published ranges.

    Guarantee: measured with one test, a lower bound. Ranges from public or synthetic records say nothing about private
    ones by construction; ranges from private records name the ones that hold the extremes.
    """
    inside, outside = (_distances(split, records) for records in (calibration, others))
    scores = -torch.cat([inside, outside]).double()
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).bool()
    attack = judged("published range", scores, truth, kind="population", adaptive=False)
    reached = [int((side < 0.5).sum()) for side in (inside, outside)]
    return RangeLeak(len(_ends(split)), reached[0], reached[1], len(calibration), attack)


def _ends(split: SplitDeployment) -> list[tuple[int, bool, float, float]]:
    """Return (tap, whether it is the upper end, its value, the step); an end at zero is no record's."""
    found = []
    for number, value in enumerate(split.tap_values):
        for upper, level in ((False, -128), (True, 127)):
            if level != value.zero_point:
                found.append((number, upper, (level - value.zero_point) * value.scale, value.scale))
    return found


def _distances(split: SplitDeployment, records: Tensor, chunk: int = 250) -> Tensor:
    """Return each record's distance, in steps, from the nearest published end."""
    module, ends, parts = to_module(split.normal), _ends(split), []
    for part in torch.split(records, chunk):
        found: Tensor | Sequence[Tensor] = module(part)
        taps = [found] if isinstance(found, Tensor) else list(found)
        flat = [tap.flatten(1) for tap in taps[: len(split.tap_values)]]
        near = [((flat[n].amax(1) if upper else flat[n].amin(1)) - end).abs() / step for n, upper, end, step in ends]
        parts.append(torch.stack(near).amin(0))
    return torch.cat(parts)
