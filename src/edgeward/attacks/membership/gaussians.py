"""One Gaussian per point, fitted to its answers under its IN or its OUT models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from edgeward.attacks.membership.moments import TINY, Moments


@final
@dataclass(frozen=True, eq=False)
class Gaussians:
    """`centre` and `scale` [n] of each point's answers; scales stay above 1e-6, so that constant answers are finite."""

    centre: Float64[Tensor, " n"]
    scale: Float64[Tensor, " n"]

    @classmethod
    def by_moments(cls, values: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"], *, pooled: bool) -> Gaussians:
        """Fit means, and each point's own deviation or the one within points, `pooled` over all of them."""
        moments = Moments.of(values, mask)
        variance = moments.pooled_variance().expand_as(moments.mean) if pooled else moments.variance()
        return cls(moments.mean, variance.sqrt())

    @classmethod
    def by_medians(cls, values: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"], *, pooled: bool) -> Gaussians:
        """Fit medians, and each point's own deviation or, `pooled`, that of all answers, between points too.

        Every point uses as many of its models, the first ones, as the point with the fewest has.
        """
        least = int(mask.sum(0).min())
        used = mask & (mask.cumsum(0) <= least)
        rising = values.masked_fill(~used, torch.inf).sort(0).values[:least]
        median = (rising[(least - 1) // 2] + rising[least // 2]) / 2
        scale = rising.std(correction=0).expand_as(median) if pooled else rising.std(0, correction=0)
        return cls(median, scale.clamp(min=TINY))

    def standardised(self, phi: Float64[Tensor, " m"], at: Int[Tensor, " m"]) -> Float64[Tensor, " m"]:
        """Return how many deviations `phi` lies above the centres of the points `at`."""
        return (phi - self.centre[at]) / self.scale[at]

    def log_density(self, phi: Float64[Tensor, " m"], at: Int[Tensor, " m"]) -> Float64[Tensor, " m"]:
        """Return the log densities of the points `at` at `phi`."""
        return -0.5 * self.standardised(phi, at) ** 2 - self.scale[at].log() - 0.5 * math.log(2 * math.pi)
