"""Intervals of attack rates over records and models: each estimate with the variance its dependent trials give it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import expit, logit
from scipy.stats import t as student

from edgeward.attacks.clusters import Clusters
from edgeward.attacks.influence import Linear, area, tpr
from edgeward.attacks.metrics import newcombe
from edgeward.core.interval import CLUSTERED, Estimate

_Scores = Float64[np.ndarray, " t"]
_Truth = Bool[np.ndarray, " t"]


def clustered_tpr(value: float, scores: _Scores, truth: _Truth, fpr: float, clusters: Clusters) -> Estimate:
    """Return `value`, the TPR read off the ROC at `fpr`, with its 95 % interval over records and models.

    The interval lies around the TPR at the threshold that passes `fpr` of non-members in expectation; the ROC's own,
    whose threshold passes one trial more, is never left outside.
    Guarantee: measured coverage, see `docs/decisions/0019-intervals-over-records-and-models.md`.
    """
    found = share(tpr(scores, truth, fpr, clusters), clusters, int(truth.sum()))
    return replace(found, value=value, low=min(found.low, value), high=max(found.high, value))


def share(rate: Linear, clusters: Clusters, trials: int) -> Estimate:
    """Return a TPR with its interval, from the influence of its trials."""
    spread = clusters.spread(rate.influence)
    return Estimate.share(rate.value, spread.variance, spread.freedom, clusters=spread.records, trials=trials)


def clustered_auc(scores: _Scores, truth: _Truth, clusters: Clusters, *, level: float = 0.95) -> Estimate:
    """Return the AUC with its interval over records and models, symmetric in its logit.

    At 0 and 1, and wherever the trials show no variance, Newcombe's interval stands in, with one member and one
    non-member trial per record group.
    """
    rate = area(scores, truth)
    spread = clusters.spread(rate.influence)
    if spread.variance <= 0 or not 0 < rate.value < 1:
        low, high = newcombe(rate.value, spread.records, spread.records, level)
    else:
        error = math.sqrt(spread.variance) / (rate.value * (1 - rate.value))
        reach = float(student.isf((1 - level) / 2, spread.freedom)) * error
        low, high = (float(expit(logit(rate.value) + side)) for side in (-reach, reach))
    return Estimate(rate.value, low, high, len(scores), CLUSTERED)
