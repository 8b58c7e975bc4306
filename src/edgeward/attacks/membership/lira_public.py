"""LiRA in the form of its authors' public script: medians, and one deviation over all points and models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe, require_one_of
from edgeward.attacks.membership.moments import TINY
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access

# The script adds 1e-45 to both probabilities before it takes their logarithms.
_MOST = -math.log(1e-45)


@final
@dataclass(frozen=True)
class PublicLiRA(Attack):
    """LiRA as the script computes it, where it differs from the paper's algorithm (`LiRA`).

    Centres are medians over a point's IN or OUT models. `variance` "fixed" takes one standard deviation over all points
    and models at once, spread between points included: in the online form that of the IN answers for both sides, in
    the offline form that of the OUT answers; "record" takes each point's own. online: log N(phi; m_in, s_in) -
    log N(phi; m_out, s_out). offline: -log N(phi; m_out, s_out), two-sided: an answer far below its median counts like
    one far above. Every point uses as many models as the point with the fewest. Deviations stay above 1e-6 (1e-30
    there), so that constant answers give finite scores.

    Cost: one query per point. Source: tensorflow/privacy, research/mi_lira_2021, `score.py` and `plot.py`.
    """

    slug: ClassVar[str] = "lira"
    access: ClassVar[Access] = "confidence"

    mode: Literal["online", "offline"] = "online"
    variance: Literal["fixed", "record"] = "fixed"

    def __post_init__(self) -> None:
        """Refuse unknown variants."""
        require_one_of("LiRA mode", self.mode, ("online", "offline"))
        require_one_of("LiRA variance", self.variance, ("fixed", "record"))

    @property
    def name(self) -> str:
        """The family, its mode, that it is the public form, and its variance."""
        return f"{self.slug}-{self.mode}-public" + ("-record" if self.variance == "record" else "")

    def rule(self, knowledge: Knowledge) -> Rule:
        """Take medians and deviations."""
        values = knowledge.statistic("logit").clamp(-_MOST, _MOST)
        outside = _first(values, knowledge.outside)
        inside = _first(values, knowledge.inside) if self.mode == "online" else None
        centre_out, scale_out = _median(outside), self._scale(outside)
        if inside is not None and self.variance == "fixed":
            scale_out = self._scale(inside)
        centre_in, scale_in = (centre_out, scale_out) if inside is None else (_median(inside), self._scale(inside))

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            phi, at = observe(oracle, points, knowledge, "logit").clamp(-_MOST, _MOST), points.index
            found = -_log_density(phi, centre_out[at], scale_out[at])
            return found if inside is None else found + _log_density(phi, centre_in[at], scale_in[at])

        return score

    def _scale(self, values: Float64[Tensor, "k n"]) -> Float64[Tensor, " n"]:
        if self.variance == "record":
            return values.std(0, correction=0).clamp(min=TINY)
        return values.std(correction=0).clamp(min=TINY).expand(values.shape[1])


def _first(values: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"]) -> Float64[Tensor, "k n"]:
    """Return each point's values under its first k models in `mask`, ascending; k is the smallest number any has."""
    least = int(mask.sum(0).min())
    used = mask & (mask.cumsum(0) <= least)
    return values.masked_fill(~used, torch.inf).sort(0).values[:least]


def _median(rising: Float64[Tensor, "k n"]) -> Float64[Tensor, " n"]:
    return (rising[(len(rising) - 1) // 2] + rising[len(rising) // 2]) / 2


def _log_density(
    phi: Float64[Tensor, " m"], centre: Float64[Tensor, " m"], scale: Float64[Tensor, " m"]
) -> Float64[Tensor, " m"]:
    return -0.5 * ((phi - centre) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


enlist(*(PublicLiRA(mode, variance) for mode in ("online", "offline") for variance in ("fixed", "record")))
