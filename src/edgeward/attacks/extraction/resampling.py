"""Intervals of stolen accuracy and of ratios: bootstrap over records and seeds together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from edgeward.core.interval import Estimate
from edgeward.core.randomness import Seed

DRAWS = 1000


def accuracy(hits: Bool[Tensor, "S h"], seed: Seed) -> Estimate:
    """Return the mean of hits over records and seeds with its bootstrap interval."""
    means = _resampled(hits, seed)
    return _estimate(float(hits.double().mean()), means, hits.numel())


def ratio(top: Bool[Tensor, "S h"], bottom: Bool[Tensor, "S h"], seed: Seed) -> Estimate:
    """Return mean(top) / mean(bottom); both are resampled alike, so what they share cancels.

    Assumed: the same seeds and the same records in both, in order. A bottom without a hit counts as half a hit.
    """
    least = 0.5 / bottom.numel()
    a, b = _resampled(top, seed), np.maximum(_resampled(bottom, seed), least)
    value = float(top.double().mean()) / max(float(bottom.double().mean()), least)
    return _estimate(value, a / b, top.numel())


def _resampled(hits: Bool[Tensor, "S h"], seed: Seed) -> Float64[np.ndarray, " d"]:
    """Return the means of `DRAWS` samples: seeds and records drawn with replacement, independently of each other."""
    generator = seed.numpy()
    models, records = hits.shape
    by_model = generator.multinomial(models, np.full(models, 1 / models), DRAWS) / models
    values = hits.numpy().astype(np.float64)
    found = np.empty(DRAWS)
    for start in range(0, DRAWS, 100):
        stop = min(start + 100, DRAWS)
        by_record = generator.multinomial(records, np.full(records, 1 / records), stop - start) / records
        found[start:stop] = ((by_record @ values.T) * by_model[start:stop]).sum(1)
    return found


def _estimate(value: float, draws: Float64[np.ndarray, " d"], trials: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value), trials, "bootstrap")
