"""From scores and truth to rates: AUC, TPR at small FPR, ROC, and thresholds chosen on other models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from edgeward.core.errors import DataError
from edgeward.core.interval import Estimate
from edgeward.core.measurement import AttackResult

Scores = Float64[Tensor, "..."]
Truth = Bool[Tensor, "..."]


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """The full ROC of one score vector, at whole groups of tied scores, strictest threshold first.

    `true` and `false` [g] count members and non-members with score >= `threshold` [g]; the first entry is the
    threshold +inf that nobody passes.
    """

    threshold: Float64[np.ndarray, " g"]
    true: Int[np.ndarray, " g"]
    false: Int[np.ndarray, " g"]

    @property
    def positives(self) -> int:
        """Number of member trials."""
        return int(self.true[-1])

    @property
    def negatives(self) -> int:
        """Number of non-member trials."""
        return int(self.false[-1])

    @classmethod
    def of(cls, scores: Scores, truth: Truth) -> Curve:
        """Sort once; raises `DataError` on NaN, on unequal shapes, or when one of the two kinds is absent."""
        s, t = scores.flatten().numpy(), truth.flatten().numpy()
        if s.shape != t.shape or np.isnan(s).any() or t.all() or not t.any():
            raise DataError(
                "these scores cannot be judged",
                expected="one number per trial, and at least one member and one non-member trial",
                came=f"{s.size} scores, {int(np.isnan(s).sum())} NaN, {int(t.sum())} members of {t.size} trials",
                fix="pass scores and truth of the same shape over both kinds of trials",
            )
        order = np.argsort(-s)
        return cls.of_sorted(s[order], t[order])

    @classmethod
    def of_sorted(cls, s: Float64[np.ndarray, " m"], t: Bool[np.ndarray, " m"]) -> Curve:
        """Count along falling scores `s` with truth `t`; the order within ties does not matter."""
        last = np.append(s[1:] != s[:-1], True)
        true, false = np.cumsum(t)[last], np.cumsum(~t)[last]
        return cls(np.append(np.inf, s[last]), np.append(0, true), np.append(0, false))

    def strictest_below(self, fpr: float) -> int:
        """Return the place of the largest TPR whose FPR does not exceed `fpr`."""
        # The slack keeps 0.01 * 100 from falling below 1 by rounding.
        allowed = math.floor(fpr * self.negatives * (1 + 1e-12) + 1e-12)
        return int(np.searchsorted(self.false, allowed, side="right")) - 1

    def tpr_at(self, fpr: float) -> Estimate:
        """Return the largest TPR whose FPR does not exceed `fpr`, with its exact Clopper-Pearson interval.

        Where tied scores straddle `fpr`, the attacker passes a random share of them: an attack with few distinct scores
        (labels only) would otherwise look harmless. The count is rounded down. With fewer than 1 / fpr negatives this
        is the TPR at no false positive.
        """
        place = self.strictest_below(fpr)
        passed = int(self.true[place])
        if place + 1 < len(self.true):
            left = math.floor(fpr * self.negatives * (1 + 1e-12) + 1e-12) - int(self.false[place])
            tied = int(self.false[place + 1] - self.false[place])
            passed += left * int(self.true[place + 1] - self.true[place]) // tied
        return Estimate.proportion(passed, self.positives)

    def balanced_accuracy(self) -> float:
        """Return the largest (TPR + 1 - FPR) / 2 over all thresholds."""
        return float(np.max(self.true / self.positives - self.false / self.negatives) + 1) / 2

    def thinned(self, most: int = 200) -> tuple[tuple[float, float], ...]:
        """Return at most `most` (FPR, TPR) points from (0, 0) to (1, 1), half of them log-spaced in FPR."""
        half = (most - 4) // 2
        levels = np.concatenate([np.geomspace(1 / self.negatives, 1, half), np.linspace(0, 1, half)])
        allowed = np.floor(levels * self.negatives + 1e-9)
        places = np.searchsorted(self.false, allowed, side="right") - 1
        chosen = np.unique(np.append(places, [0, len(self.false) - 1]))
        return tuple((float(self.false[p] / self.negatives), float(self.true[p] / self.positives)) for p in chosen)


def auc(scores: Scores, truth: Truth, *, level: float = 0.95) -> Estimate:
    """Return P[member scores above non-member] + P[tie] / 2, exact by counting, with Newcombe's interval.

    Assumed by the interval: independent trials; trials of one record under several models are not.
    """
    curve = Curve.of(scores, truth)
    n1, n0 = curve.positives, curve.negatives
    # Each group of tied members beats the non-members strictly below it, and half of those it is tied with.
    twice_beaten = 2 * n0 - curve.false[1:] - curve.false[:-1]
    value = int((np.diff(curve.true) * twice_beaten).sum()) / (2 * n1 * n0)
    low, high = newcombe(value, n1, n0, level)
    return Estimate(value, low, high, n1 + n0, "newcombe")


def newcombe(value: float, n1: int, n0: int, level: float) -> tuple[float, float]:
    """Return Newcombe's interval of an AUC that rests on `n1` member and `n0` non-member trials, all independent.

    It holds the areas A' with |A - A'| <= z sqrt(V(A')), V being Hanley and McNeil's variance taken at A', so it stays
    inside [0, 1] and has a width even at 0 and 1. Source: Newcombe, Stat. Med. 2006, method 5.
    """
    z, extra = float(norm.ppf((1 + level) / 2)), (n1 + n0) / 2 - 1

    def excess(area: float) -> float:
        variance = area * (1 - area) * (1 + extra * ((1 - area) / (2 - area) + area / (1 + area))) / (n1 * n0)
        return (value - area) ** 2 - z * z * variance

    # V vanishes at 0 and 1; a value at one of them is its own bound on that side, and the other bound lies strictly
    # within, where `excess` changes sign after its root at the value itself: start the search just beside it.
    low = 0.0 if value == 0 else float(brentq(excess, 0.0, min(value, 1 - 1e-12)))
    high = 1.0 if value == 1 else float(brentq(excess, max(value, 1e-12), 1.0))
    return low, high


def judged(name: str, scores: Scores, truth: Truth, *, kind: str, adaptive: bool) -> AttackResult:
    """Return the rates of one score vector, pooled over its trials, with intervals.

    Assumed by the intervals: independent trials. Trials of one point under several models are dependent.
    """
    curve = Curve.of(scores, truth)
    return AttackResult(
        name=name,
        auc=auc(scores, truth),
        balanced_accuracy=curve.balanced_accuracy(),
        tpr_at_1pct=curve.tpr_at(0.01),
        tpr_at_0_1pct=curve.tpr_at(0.001),
        positives=curve.positives,
        negatives=curve.negatives,
        adaptive=adaptive,
        kind=kind,
        roc=curve.thinned(),
    )


def transferred(scores: Float64[Tensor, "S n"], truth: Bool[Tensor, "S n"], fpr: float) -> tuple[float, float]:
    """Return (TPR, FPR) reached when each model's threshold is chosen on the other models' scores only.

    For each target the threshold is the one of largest TPR with FPR <= `fpr` on the pooled trials of the others;
    what the attacker then reaches on the target is pooled. The FPR reached may exceed `fpr`.
    """
    true = false = 0
    # Sorted once: leaving one model out of a sorted list leaves it sorted.
    order = np.argsort(-scores.flatten().numpy())
    s, t = scores.flatten().numpy()[order], truth.flatten().numpy()[order]
    model = order // scores.shape[1]
    for target in range(len(scores)):
        others = model != target
        curve = Curve.of_sorted(s[others], t[others])
        passed = scores[target] >= float(curve.threshold[curve.strictest_below(fpr)])
        true += int((passed & truth[target]).sum())
        false += int((passed & ~truth[target]).sum())
    return true / int(truth.sum()), false / int((~truth).sum())


def transferred_accuracy(scores: Float64[Tensor, "S n"], truth: Bool[Tensor, "S n"]) -> float:
    """Return the balanced accuracy reached when each model's threshold is chosen on the other models' scores only.

    For each target the threshold is the one of largest TPR - FPR on the pooled trials of the others (the strictest
    such); what the attacker then reaches on the target is pooled.
    """
    s, t = scores.flatten().numpy(), truth.flatten().numpy()
    order = np.argsort(-s)
    s, t, model = s[order], t[order], order // scores.shape[1]
    passed = np.zeros_like(t)
    for target in range(len(scores)):
        own = model == target
        curve = Curve.of_sorted(s[~own], t[~own])
        best = int(np.argmax(curve.true / curve.positives - curve.false / curve.negatives))
        passed[own] = s[own] >= curve.threshold[best]
    return float(passed[t].mean() + 1 - passed[~t].mean()) / 2
