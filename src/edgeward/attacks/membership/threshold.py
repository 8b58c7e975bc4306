"""Threshold attacks: one statistic of the target's answer, global or shifted by its class's threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe, require_one_of
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.attacks.statistics import STATISTICS
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class Threshold(Attack):
    """Score = a statistic of the target's answer ("loss", "entropy", "modified-entropy", "hinge", "logit").

    `per_class` subtracts the threshold of the point's class that best separates the shadow models' IN from OUT answers
    (balanced accuracy), so that one pooled ROC compares points of different classes.

    Cost: one query per point. Source: Yeom et al., CSF'18; Song & Mittal, USENIX Sec'21, section 3.
    """

    slug: ClassVar[str] = "threshold"
    access: ClassVar[Access] = "confidence"

    statistic: str = "loss"
    per_class: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown statistics."""
        require_one_of("statistic", self.statistic, STATISTICS)

    @property
    def name(self) -> str:
        """The statistic, and whether it is per class."""
        return f"{self.statistic}-per-class" if self.per_class else self.statistic

    def rule(self, knowledge: Knowledge) -> Rule:
        """Calibrate the class thresholds, if asked to."""
        thresholds = torch.zeros(knowledge.classes, dtype=torch.float64)
        if self.per_class:
            values = knowledge.statistic(self.statistic)
            labels = knowledge.labels.expand_as(values)
            used = knowledge.inside | knowledge.outside
            thresholds = class_thresholds(values[used], labels[used], knowledge.inside[used], knowledge.classes)

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            return observe(oracle, points, knowledge, self.statistic) - thresholds[knowledge.labels[points.index]]

        return score


def class_thresholds(
    values: Float64[Tensor, " m"], labels: Int[Tensor, " m"], inside: Bool[Tensor, " m"], classes: int
) -> Float64[Tensor, " C"]:
    """Return per class the observed value t that maximises TPR - FPR of `value >= t`; the largest such value.

    Classes that never occur get the threshold over all classes. Cost: one sort of all values.
    """
    falling = np.argsort(-values.numpy())
    # Stable sorting of 16-bit integers is a radix sort: the classes cost less than the values.
    compact = labels.numpy()[falling].astype(np.int16 if classes < 2**15 else np.int64)
    by_class = falling[np.argsort(compact, kind="stable")]
    whole = _best_cut(values, torch.zeros_like(labels), inside, 1, torch.from_numpy(falling))
    own = _best_cut(values, labels, inside, classes, torch.from_numpy(by_class))
    return torch.where(own.isnan(), whole, own)


def _best_cut(
    values: Float64[Tensor, " m"],
    labels: Int[Tensor, " m"],
    inside: Bool[Tensor, " m"],
    classes: int,
    order: Int[Tensor, " m"],
) -> Float64[Tensor, " C"]:
    """Return each class's cut; `order` sorts by class, then by falling value."""
    v, c, i = values[order], labels[order], inside[order].double()
    members = torch.zeros(classes, dtype=torch.float64).index_add(0, c, i).clamp(min=1)
    others = torch.zeros(classes, dtype=torch.float64).index_add(0, c, 1 - i).clamp(min=1)
    gain = torch.cumsum(i / members[c] - (1 - i) / others[c], 0)
    sizes = torch.bincount(c, minlength=classes)
    starts = sizes.cumsum(0) - sizes
    before = torch.cat([torch.zeros(1, dtype=torch.float64), gain])[starts]
    # A threshold takes every equal value: only the last of a run of ties is a place to cut.
    last = torch.ones_like(i, dtype=torch.bool)
    last[:-1] = (v[1:] != v[:-1]) | (c[1:] != c[:-1])
    gain = torch.where(last, gain - before[c], -torch.inf)
    best = torch.full((classes,), -torch.inf, dtype=torch.float64).scatter_reduce(0, c, gain, "amax")
    # Cumulative sums round: treat gains within 1e-12 of the best as equal and keep the strictest threshold.
    top = gain >= best[c] - 1e-12
    cut = torch.full((classes,), -torch.inf, dtype=torch.float64).scatter_reduce(0, c[top], v[top], "amax")
    return torch.where(sizes > 0, cut, torch.nan)


_STATISTICS = ("loss", "entropy", "modified-entropy", "hinge", "logit")
enlist(*(Threshold(statistic, per_class) for statistic in _STATISTICS for per_class in (False, True)))
