"""BASE: the target's log probability against the average probability of the shadow models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe, require_one_of
from edgeward.attacks.membership.rmia import log_mean_exp
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class BASE(Attack):
    """Score = log p_y(target) - log mean_k p_y(shadow_k): RMIA's ratio without the population, so without its ties.

    online averages IN and OUT models alike; offline subtracts `weight` times the same term over OUT models alone.
    Cost: one query per point. Source: BASE, as implemented in LeakPro (temperature 2, weight 0.33).
    """

    slug: ClassVar[str] = "base"
    access: ClassVar[Access] = "confidence"

    mode: Literal["online", "offline"] = "online"
    temperature: float = 2.0
    weight: float = 0.33

    def __post_init__(self) -> None:
        """Refuse unknown modes."""
        require_one_of("BASE mode", self.mode, ("online", "offline"))

    @property
    def name(self) -> str:
        """The family and its mode."""
        return f"{self.slug}-{self.mode}"

    def rule(self, knowledge: Knowledge) -> Rule:
        """Average the shadow models' probabilities."""
        values = knowledge.statistic("loss", temperature=self.temperature)
        if self.mode == "online":
            expected = log_mean_exp(values, knowledge.inside | knowledge.outside)
        else:
            expected = self.weight * log_mean_exp(values, knowledge.outside)

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            return observe(oracle, points, knowledge, "loss", temperature=self.temperature) - expected[points.index]

        return score


enlist(BASE(), BASE(mode="offline"))
