"""Point estimates that carry their interval and the number of trials behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from scipy.stats import beta, norm
from scipy.stats import t as student

CLUSTERED = "clustered"


@final
@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval and the number of trials `n` it rests on.

    `method` names how the interval was made ("clopper-pearson", "clustered", "newcombe", "bootstrap", ...).
    """

    value: float
    low: float
    high: float
    n: int
    method: str = "clopper-pearson"

    @classmethod
    def proportion(cls, successes: int, trials: int, *, level: float = 0.95) -> Estimate:
        """Exact two-sided Clopper-Pearson interval of a proportion.

        >>> e = Estimate.proportion(0, 100)
        >>> e.value, e.low, round(e.high, 4)
        (0.0, 0.0, 0.0362)
        """
        if trials <= 0 or not 0 <= successes <= trials:
            raise ValueError(f"expected 0 <= successes <= trials and trials > 0, came {successes} of {trials}")
        tail = (1 - level) / 2
        low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
        high = 1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
        return cls(successes / trials, low, high, trials)

    @classmethod
    def share(
        cls, value: float, variance: float, freedom: float, *, clusters: int, trials: int, level: float = 0.95
    ) -> Estimate:
        """Return an interval for a share whose `trials` depend on each other, given its variance.

        The trials count as so many independent ones, with degrees of freedom `freedom`, as would give this variance;
        the interval is Jeffreys' for that number. A share with no variance to go by (0, 1) counts each of the
        `clusters` of trials that may be wholly alike as one. Source: Korn and Graubard, Survey Methodology 1998 (with
        Clopper-Pearson bounds there); Franco et al., J. Survey Stat. Methodol. 2019 (with Jeffreys').

        >>> print(Estimate.share(0.5, 0.0025, 1e9, clusters=30, trials=1000))
        50.0% [40.3%, 59.7%]
        >>> print(Estimate.share(0.0, 0.0, 1.0, clusters=100, trials=1000))
        0.0% [0.0%, 2.5%]
        """
        tail = (1 - level) / 2
        apart = value * (1 - value)
        effective = float(clusters)
        # Below this the variance is what rounding left of none.
        if apart > 0 and variance > 1e-20 * apart:
            lost = float(norm.isf(tail) / student.isf(tail, freedom)) ** 2
            effective = min(apart / variance * lost, float(trials))
        hits, misses = value * effective + 0.5, (1 - value) * effective + 0.5
        low = 0.0 if value == 0 else min(value, float(beta.ppf(tail, hits, misses)))
        high = 1.0 if value == 1 else max(value, float(beta.isf(tail, hits, misses)))
        return cls(value, low, high, trials, CLUSTERED)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form written to `report.json`."""
        return {"value": self.value, "interval": [self.low, self.high], "n": self.n, "method": self.method}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Estimate:
        """Read back what `to_json` wrote."""
        low, high = data["interval"]
        return cls(data["value"], low, high, data["n"], data["method"])

    def __str__(self) -> str:
        """Format as a percentage with its interval."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
