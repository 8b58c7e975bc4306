"""Trials that depend on each other: variance of a rate when records and models are both drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped


@final
@dataclass(frozen=True)
class Spread:
    """The variance of an estimate, its degrees of freedom, and the number of record groups it rests on."""

    variance: float
    freedom: float
    records: int


@final
@dataclass(frozen=True, eq=False)
class Clusters:
    """Model and record group of each of t trials; equal numbers mean the same model, or records in or out together.

    Numbers are small: counts over them are kept.
    """

    model: Int[np.ndarray, " t"]
    record: Int[np.ndarray, " t"]

    @classmethod
    def of(cls, models: Shaped[np.ndarray, " S"], groups: Shaped[np.ndarray, " n"]) -> Clusters:
        """Return the clusters of a matrix [S, n] of trials, flattened row by row."""
        model, record = (np.unique(ids, return_inverse=True)[1].reshape(-1) for ids in (models, groups))
        return cls(np.repeat(model, len(record)), np.tile(record, len(model)))

    def of_some(self, chosen: Bool[np.ndarray, " t"]) -> Clusters:
        """Return the clusters of the chosen trials only."""
        model, record = (np.unique(ids[chosen], return_inverse=True)[1] for ids in (self.model, self.record))
        return Clusters(model, record)

    def spread(self, influence: Float64[np.ndarray, " t"]) -> Spread:
        """Return the variance of an estimate to which each trial contributes its `influence`.

        V = V_records + V_models - V_cells: the sums over each record group, over each model, and over each pair of
        both, which the other two count twice; never less than one of the first two. With a single model only the
        records vary, and the other way round. The degrees of freedom are Satterthwaite's, as if the two were chi
        squares with one less than their number of clusters; at least the smaller of these.

        Guarantee: measured (benchmark `interval-coverage`). Assumed: records (groups) and models are each drawn
        independently of one another. Cost: three counts over the trials.
        Source: Cameron, Gelbach, Miller, J. Bus. Econ. Stat. 2011, section 2; Owen, Ann. Appl. Stat. 2007.
        """
        record, records = _variance(influence, self.record)
        model, models = _variance(influence, self.model)
        cell, _ = _variance(influence, self.record.astype(np.int64) * (int(self.model.max()) + 1) + self.model)
        if min(records, models) < 2:
            return Spread(max(record, model), max(records, models, 2) - 1, records)
        total = max(record + model - cell, record, model)
        noise = record**2 / (records - 1) + model**2 / (models - 1)
        least = min(records, models) - 1
        return Spread(total, max(total**2 / noise, least) if noise > 0 else least, records)


def _variance(influence: Float64[np.ndarray, " t"], ids: Int[np.ndarray, " t"]) -> tuple[float, int]:
    """Return the sum of squares of the clusters' sums, corrected for their number, and this number."""
    sums = np.bincount(ids, weights=influence)
    count = int(np.count_nonzero(np.bincount(ids)))
    return float((sums**2).sum()) * (count / (count - 1) if count > 1 else 0.0), count
