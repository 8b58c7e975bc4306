"""Intervals of stolen accuracy and of ratios: bootstrap over records and seeds together."""

from __future__ import annotations

from dataclasses import replace

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


def best_ratio(top: Bool[Tensor, "V S h"], bottom: Bool[Tensor, "W S h"], seed: Seed) -> Estimate:
    """Return max_v mean(top[v]) / max_w mean(bottom[w]); the best are taken anew in every draw.

    The upper end is never nearer than what h records can resolve: where two models agree on all of them, they may
    still differ on 1 - 0.025^(1/h) of all records (Clopper and Pearson's bound for no event in h).
    """
    least = 0.5 / bottom[0].numel()
    a, b = (np.max([_resampled(hits, seed) for hits in side], axis=0) for side in (top, bottom))
    best = [float(side.double().mean((1, 2)).max()) for side in (top, bottom)]
    found = _estimate(best[0] / max(best[1], least), a / np.maximum(b, least), top[0].numel())
    unseen = (1 - 0.025 ** (1 / top.shape[-1])) / max(best[1], least)
    return replace(found, high=max(found.high, found.value + unseen))


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
