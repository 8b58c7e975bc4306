"""The gap attack: whatever the model gets right was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class Gap(Attack):
    """Score 1 where the predicted class is the label, else 0; every audit shows it.

    Its balanced accuracy is exactly 1/2 + (accuracy on members - accuracy on non-members) / 2.
    Cost: one query per point, no shadow model. Source: Yeom et al., CSF'18, section 3.2.
    """

    slug: ClassVar[str] = "gap"
    access: ClassVar[Access] = "label"

    def rule(self, knowledge: Knowledge) -> Rule:
        """Learn nothing."""

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            return (oracle.labels(points.records) == knowledge.labels[points.index]).double()

        return score


enlist(Gap())
