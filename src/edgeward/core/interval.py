"""Point estimates that carry their interval and the number of trials behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from scipy.stats import beta


@final
@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval and the number of trials `n` it rests on.

    `method` names how the interval was made ("clopper-pearson", "hanley-mcneil", "bootstrap", ...).
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
