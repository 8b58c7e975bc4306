"""First and second moments of a statistic over each point's IN or OUT models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Float64
from torch import Tensor

# Standard deviations are kept above this, so that constant answers give finite scores.
TINY = 1e-6


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Per point: number of models `count` [n], their `mean` [n], and `spread` [n], the sum of squared residuals."""

    count: Float64[Tensor, " n"]
    mean: Float64[Tensor, " n"]
    spread: Float64[Tensor, " n"]

    @classmethod
    def of(cls, values: Float64[Tensor, "K n"], mask: Bool[Tensor, "K n"]) -> Moments:
        """Return the moments of `values` where `mask` is set; every point needs one model."""
        count = mask.sum(0).double()
        mean = (values * mask).sum(0) / count
        spread = ((values - mean) ** 2 * mask).sum(0)
        return cls(count, mean, spread)

    def pooled_variance(self) -> Float64[Tensor, ""]:
        """Return the one variance within points, pooled over all (unbiased).

        With a single model per point nothing varies within one; the variance between points stands in, as a bound.
        """
        freedom = (self.count - 1).sum()
        pooled = self.spread.sum() / freedom if float(freedom) > 0 else self.mean.var(correction=0)
        return pooled.clamp(min=TINY**2)

    def variance(self) -> Float64[Tensor, " n"]:
        """Return each point's own maximum-likelihood variance [n]."""
        return (self.spread / self.count).clamp(min=TINY**2)
