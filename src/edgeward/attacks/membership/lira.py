"""LiRA: the likelihood ratio of the logit-scaled confidence under Gaussians fitted to IN and OUT models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

from jaxtyping import Bool, Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe, require_one_of
from edgeward.attacks.membership.gaussians import Gaussians
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access

# The public script adds 1e-45 to both probabilities before it takes their logarithms.
_MOST = -math.log(1e-45)


@final
@dataclass(frozen=True)
class LiRA(Attack):
    """Compare phi = log(p_y / (1 - p_y)) of the target with Gaussians fitted to the shadow models, point by point.

    `form` "paper" follows the paper's algorithm: each side has its own mean and deviation. online: log N(phi; mu_in,
    s_in) - log N(phi; mu_out, s_out). offline (OUT models only): the log-CDF form log P[N(mu_out, s_out) <= phi]
    decides by (phi - mu_out) / s_out, which is returned as it never saturates. `variance`: "fixed" pools one variance
    within points over all points (better below 64 shadow models), "record" uses each point's.

    `form` "public" is what the authors' script computes: centres are medians; "fixed" takes one deviation over all
    points and models at once, in the online form that of the IN answers for both sides; offline is -log N(phi; m_out,
    s_out), two-sided: an answer far below its median counts like one far above. |phi| stays below 104. Neither form is
    the stronger everywhere. Differs from the script: deviations stay above 1e-6 (1e-30 there).

    Cost: one query per point. Source: Carlini et al., S&P'22, algorithm 1 and section VI; "public":
    tensorflow/privacy, research/mi_lira_2021, `score.py` and `plot.py`.
    """

    slug: ClassVar[str] = "lira"
    access: ClassVar[Access] = "confidence"

    mode: Literal["online", "offline"] = "online"
    variance: Literal["fixed", "record"] = "fixed"
    form: Literal["paper", "public"] = "paper"

    def __post_init__(self) -> None:
        """Refuse unknown variants."""
        require_one_of("LiRA mode", self.mode, ("online", "offline"))
        require_one_of("LiRA variance", self.variance, ("fixed", "record"))
        require_one_of("LiRA form", self.form, ("paper", "public"))

    @property
    def name(self) -> str:
        """The family, its mode, its form and its variance."""
        form = "-public" if self.form == "public" else ""
        return f"{self.slug}-{self.mode}{form}" + ("-record" if self.variance == "record" else "")

    def rule(self, knowledge: Knowledge) -> Rule:
        """Fit the Gaussians."""
        values = self._bounded(knowledge.statistic("logit"))
        inside = self._fit(values, knowledge.inside) if self.mode == "online" else None
        outside = self._fit(values, knowledge.outside)
        if inside is not None and self.form == "public" and self.variance == "fixed":
            outside = replace(outside, scale=inside.scale)

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            phi, at = self._bounded(observe(oracle, points, knowledge, "logit")), points.index
            if inside is not None:
                return inside.log_density(phi, at) - outside.log_density(phi, at)
            return outside.standardised(phi, at) if self.form == "paper" else -outside.log_density(phi, at)

        return score

    def _fit(self, values: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"]) -> Gaussians:
        fit = Gaussians.by_moments if self.form == "paper" else Gaussians.by_medians
        return fit(values, mask, pooled=self.variance == "fixed")

    def _bounded(self, phi: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        return phi if self.form == "paper" else phi.clamp(-_MOST, _MOST)


enlist(
    *(
        LiRA(mode, variance, form)
        for form in ("paper", "public")
        for mode in ("online", "offline")
        for variance in ("fixed", "record")
    )
)
