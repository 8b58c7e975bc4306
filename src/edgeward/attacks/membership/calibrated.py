"""Difficulty calibration: the loss minus what models that never saw the point lose on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe
from edgeward.attacks.membership.moments import Moments
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class Calibrated(Attack):
    """Score = s(target) - mean over OUT models of s(shadow), for a statistic s; one reference model is enough.

    Cost: one query per point. Source: Watson et al., ICLR'22, equation 3.
    """

    slug: ClassVar[str] = "calibrated"
    access: ClassVar[Access] = "confidence"

    statistic: str = "loss"

    def rule(self, knowledge: Knowledge) -> Rule:
        """Average the OUT models."""
        difficulty = Moments.of(knowledge.statistic(self.statistic), knowledge.outside).mean

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            return observe(oracle, points, knowledge, self.statistic) - difficulty[points.index]

        return score


enlist(Calibrated())
