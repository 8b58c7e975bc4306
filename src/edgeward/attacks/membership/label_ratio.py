"""A likelihood ratio from one predicted label: for adversaries who never see a confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Bool, Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class LabelRatio(Attack):
    """Score = log P[answer | IN] - log P[answer | OUT], the answer being whether the predicted label is the record's.

    Both probabilities are the shadow models' hit rates on the point, shrunk towards the rate over all points by
    `prior` pseudo-models. The attacker sees confidences of its own shadow models only.
    Cost: one query per point. Source: LiRA's test (Carlini et al., S&P'22) with a Bernoulli in place of the Gaussian.
    """

    slug: ClassVar[str] = "label-ratio"
    access: ClassVar[Access] = "label"

    prior: float = 1.0

    def rule(self, knowledge: Knowledge) -> Rule:
        """Estimate the hit rates."""
        hits = knowledge.statistic("correctness")
        p_in, p_out = self._rate(hits, knowledge.inside), self._rate(hits, knowledge.outside)
        if_right, if_wrong = (p_in / p_out).log(), ((1 - p_in) / (1 - p_out)).log()

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            right = oracle.labels(points.records) == knowledge.labels[points.index]
            return if_right[points.index].where(right, if_wrong[points.index])

        return score

    def _rate(self, hits: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"]) -> Float64[Tensor, " n"]:
        # Half a pseudo-hit and half a pseudo-miss keep the rate over all points off 0 and 1.
        overall = ((hits * mask).sum() + 0.5) / (mask.sum() + 1)
        return ((hits * mask).sum(0) + self.prior * overall) / (mask.sum(0) + self.prior)


enlist(LabelRatio())
