"""Rates as sums over trials: a rate's value and what each trial, member or not, contributes to its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int

from edgeward.attacks.clusters import Clusters

_Scores = Float64[np.ndarray, " t"]
_Truth = Bool[np.ndarray, " t"]


@final
@dataclass(frozen=True, eq=False)
class Linear:
    """A rate and the influence [t] of each trial: rate - its expectation is about the sum of what trials contribute."""

    value: float
    influence: Float64[np.ndarray, " t"]


def passing(scores: _Scores, rivals: Float64[np.ndarray, " r"], rank: float) -> Float64[np.ndarray, " t"]:
    """Return each score's chance of standing above the `rank`-th largest of `rivals` (ascending), ties broken by lot.

    A fraction of a rank mixes its two neighbours. A new draw from the rivals' own distribution passes with probability
    rank / (r + 1), exactly, so the rate of members that pass is without bias where they are no different.
    """
    whole = math.floor(rank)
    found = _above(scores, rivals, whole)
    part = rank - whole
    return found if part == 0 else (1 - part) * found + part * _above(scores, rivals, whole + 1)


def rank_at(fpr: float, rivals: int) -> float:
    """Return the rank of the rival above which a new one stands with probability `fpr`; at least the first."""
    return max(fpr * (rivals + 1), 1.0)


def tpr(scores: _Scores, truth: _Truth, fpr: float, clusters: Clusters) -> Linear:
    """Return the TPR at the threshold that a new non-member passes with probability `fpr`.

    The threshold is estimated from the non-members; their influence is their share in its error times the slope of the
    ROC there, taken over one standard error of the FPR to either side. With fewer than 1 / fpr - 1 non-members the
    threshold is the largest of them.
    """
    members, rivals = scores[truth], np.sort(scores[~truth])
    rank = rank_at(fpr, len(rivals))
    passed = passing(scores, rivals, rank)
    false = np.where(truth, 0.0, (passed - passed[~truth].mean()) / len(rivals))
    reach = max(1.0, math.sqrt(clusters.spread(false).variance) * len(rivals))
    low, high = max(rank - reach, 0.0), min(rank + reach, len(rivals) + 1.0)
    rise = float(passing(members, rivals, high).mean() - passing(members, rivals, low).mean())
    slope = rise * (len(rivals) + 1) / (high - low)
    value = float(passed[truth].mean())
    return Linear(value, np.where(truth, (passed - value) / len(members), -slope * false))


def area(scores: _Scores, truth: _Truth) -> Linear:
    """Return the AUC: each trial contributes the share of the other kind that it beats (ties count half).

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 1988.
    """
    influence = np.empty_like(scores)
    members, others = np.sort(scores[truth]), np.sort(scores[~truth])
    # Twice the number of non-members that each member beats, and of members that beat each non-member.
    beaten = _twice_below(scores[truth], others)
    beating = 2 * len(members) - _twice_below(scores[~truth], members)
    value = int(beaten.sum()) / (2 * len(members) * len(others))
    influence[truth] = (beaten / (2 * len(others)) - value) / len(members)
    influence[~truth] = (beating / (2 * len(members)) - value) / len(others)
    return Linear(value, influence)


def _twice_below(scores: _Scores, rivals: Float64[np.ndarray, " r"]) -> Int[np.ndarray, " t"]:
    return np.searchsorted(rivals, scores, side="left") + np.searchsorted(rivals, scores, side="right")


def _above(scores: _Scores, rivals: Float64[np.ndarray, " r"], rank: int) -> Float64[np.ndarray, " t"]:
    if rank <= 0 or rank > len(rivals):
        return np.full(len(scores), float(rank > 0))
    bar = rivals[len(rivals) - rank]
    first, last = np.searchsorted(rivals, bar, side="left"), np.searchsorted(rivals, bar, side="right")
    above = len(rivals) - last
    # Of m tied rivals, j = rank - above - 1 come before the bar: a trial tied with them does so j + 1 times in m + 1.
    lot = (rank - above) / (last - first + 1)
    return np.where(scores > bar, 1.0, np.where(scores == bar, lot, 0.0))
