"""LiRA: the likelihood ratio of the logit-scaled confidence under Gaussians fitted to IN and OUT models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe, require_one_of
from edgeward.attacks.membership.moments import Moments
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access


@final
@dataclass(frozen=True)
class LiRA(Attack):
    """Compare phi = log(p_y / (1 - p_y)) of the target with Gaussians fitted to the shadow models, point by point.

    online: log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out). offline (OUT models only): the log-CDF form
    log P[N(mu_out, s_out) <= phi] decides by (phi - mu_out) / s_out, which is returned as it never saturates.
    `variance`: "fixed" pools one variance over all points (better below 64 shadow models), "record" uses each point's.

    Each side has its own within-point variance and mean, as the paper's algorithm says; the authors' public script
    differs and is `PublicLiRA`.

    Cost: one query per point. Source: Carlini et al., S&P'22, algorithm 1 and section VI.
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
        """The family, its mode and its variance."""
        return f"{self.slug}-{self.mode}" + ("-record" if self.variance == "record" else "")

    def rule(self, knowledge: Knowledge) -> Rule:
        """Fit the Gaussians."""
        values = knowledge.statistic("logit")
        outside = Moments.of(values, knowledge.outside)
        inside = Moments.of(values, knowledge.inside) if self.mode == "online" else None
        var_out = self._variance(outside)
        var_in = self._variance(inside) if inside else None

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            phi, at = observe(oracle, points, knowledge, "logit"), points.index
            if inside is None or var_in is None:
                return (phi - outside.mean[at]) / var_out[at].sqrt()
            return _log_density(phi, inside.mean[at], var_in[at]) - _log_density(phi, outside.mean[at], var_out[at])

        return score

    def _variance(self, moments: Moments) -> Float64[Tensor, " n"]:
        if self.variance == "record":
            return moments.variance()
        return moments.pooled_variance().expand_as(moments.mean)


def _log_density(
    phi: Float64[Tensor, " m"], mean: Float64[Tensor, " m"], variance: Float64[Tensor, " m"]
) -> Float64[Tensor, " m"]:
    """Return the Gaussian's log density up to the constant that cancels in the ratio."""
    return -0.5 * ((phi - mean) ** 2 / variance + variance.log())


enlist(LiRA(), LiRA(variance="record"), LiRA(mode="offline"), LiRA(mode="offline", variance="record"))
