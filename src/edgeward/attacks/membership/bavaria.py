"""BaVarIA: LiRA with the variance integrated out, so that few shadow models suffice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.attack import Attack, Points, Rule, enlist, observe
from edgeward.attacks.membership.moments import TINY, Moments
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.core.threat import Access

# Strength of the variance prior when one model per side leaves nothing to estimate it from, and its bounds.
_ALPHA_DEFAULT, _ALPHA_LEAST, _ALPHA_MOST = 3.0, 2.1, 500.0
_KAPPA_LEAST, _KAPPA_MOST = 1e-3, 1e3


@final
@dataclass(frozen=True, eq=False)
class Predictive:
    """Student-t predictive of one side: `freedom`, `centre` and `scale` [n]."""

    freedom: Float64[Tensor, " n"]
    centre: Float64[Tensor, " n"]
    scale: Float64[Tensor, " n"]

    def log_density(self, phi: Float64[Tensor, " m"], at: Tensor) -> Float64[Tensor, " m"]:
        """Return the log density at `phi` of the points `at`."""
        nu, scale = self.freedom[at], self.scale[at]
        z = (phi - self.centre[at]) / scale
        normal = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(nu * math.pi) - scale.log()
        return normal - (nu + 1) / 2 * torch.log1p(z * z / nu)


def predictive(moments: Moments, other: Moments) -> Predictive:
    """Return one side's posterior predictive under a normal-inverse-gamma prior estimated from all points.

    Empirical Bayes: a point's prior mean is the least-squares prediction from its mean on the `other` side (hard points
    are hard for IN and OUT models alike), kappa the variance within points over the variance left between them, beta
    matches the pooled variance, and alpha how much the points' variances differ beyond sampling noise.
    """
    n, pooled = moments.count, moments.pooled_variance()
    x, y = other.mean - other.mean.mean(), moments.mean - moments.mean.mean()
    slope = (x * y).sum() / (x * x).sum().clamp(min=TINY**2)
    mu = moments.mean.mean() + slope * x
    # What the prediction misses still holds the noise of estimating each point's mean.
    between = ((moments.mean - mu).var(correction=0) - (pooled / n).mean()).clamp(min=TINY**2)
    kappa = (pooled / between).clamp(_KAPPA_LEAST, _KAPPA_MOST)
    alpha = _prior_alpha(moments, pooled)
    beta = (alpha - 1) * pooled
    kappa_n, alpha_n = kappa + n, alpha + n / 2
    mu_n = (kappa * mu + n * moments.mean) / kappa_n
    beta_n = beta + 0.5 * moments.spread + kappa * n * (moments.mean - mu) ** 2 / (2 * kappa_n)
    scale = torch.sqrt(beta_n * (kappa_n + 1) / (alpha_n * kappa_n)).clamp(min=TINY)
    return Predictive(2 * alpha_n, mu_n, scale)


def _prior_alpha(moments: Moments, pooled: Float64[Tensor, ""]) -> float:
    """Return the inverse-gamma shape: E[s^4] / E[s^2]^2 = (1 + 2/(n-1)) (1 + 1/(alpha-2)) for variances s^2."""
    freedom = moments.count - 1
    many = freedom > 0
    if int(many.sum()) < 2:
        return _ALPHA_DEFAULT
    own = moments.spread[many] / freedom[many]
    excess = float((own**2 / (1 + 2 / freedom[many])).mean() / pooled**2) - 1
    return min(max(2 + 1 / excess, _ALPHA_LEAST), _ALPHA_MOST) if excess > 0 else _ALPHA_MOST


@final
@dataclass(frozen=True)
class BaVarIA(Attack):
    """Log ratio of Student-t predictives of the logit-scaled confidence, IN against OUT.

    The prior is conjugate (normal-inverse-gamma) and estimated from the shadow models, so nothing is tuned; with many
    shadow models the score tends to LiRA's with per-record variance. Recommended below 64 shadow models. Predicting
    each side's prior mean from the other side is an addition of this implementation.
    Cost: one query per point.
    Source: the family is named BaVarIA (2026 preprint); the conjugate form and the empirical prior are derived here.
    """

    slug: ClassVar[str] = "bavaria"
    access: ClassVar[Access] = "confidence"

    def rule(self, knowledge: Knowledge) -> Rule:
        """Compute both predictives."""
        values = knowledge.statistic("logit")
        seen, unseen = Moments.of(values, knowledge.inside), Moments.of(values, knowledge.outside)
        inside, outside = predictive(seen, unseen), predictive(unseen, seen)

        def score(oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
            phi = observe(oracle, points, knowledge, "logit")
            return inside.log_density(phi, points.index) - outside.log_density(phi, points.index)

        return score


enlist(BaVarIA())
