"""Columns of text as features: numbers standardised, categories one-hot, both fitted on the training role only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32

from edgeward.data.records import Records
from edgeward.data.splits import Splits


def as_number(cell: str) -> float | None:
    """Return the finite number a cell holds, or None; Python's digit underscores are not numbers here."""
    try:
        value = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@final
@dataclass(frozen=True, repr=False)
class Columns:
    """The distinct values of every column: a table of numbers, or None for a column of categories.

    Rows travel through dealing as positions in these tables, which float32 holds exactly below 2^24, so that two rows
    are equal there exactly when they are equal in the file.
    """

    numbers: tuple[np.ndarray | None, ...]

    @classmethod
    def code(
        cls, rows: Sequence[Sequence[str]], numeric: Sequence[bool]
    ) -> tuple[Columns, Float32[np.ndarray, "n columns"]]:
        """Return the tables and every row as positions; `numeric` says which columns hold numbers."""
        tables: list[np.ndarray | None] = []
        codes = np.zeros((len(rows), len(numeric)), dtype=np.float32)
        for j, is_number in enumerate(numeric):
            cells = [row[j] for row in rows]
            # Each cell of a numeric column is a number: the caller has looked.
            column = np.array([float(c) for c in cells], dtype=np.float64) if is_number else np.array(cells, dtype=str)
            table, position = np.unique(column, return_inverse=True)
            tables.append(table if is_number else None)
            codes[:, j] = position.reshape(-1)
        return cls(tuple(tables)), codes

    def encode(self, splits: Splits) -> Splits:
        """Return `splits` with positions turned into features.

        A number becomes (value - mean) / deviation with the mean and deviation of `train` (deviation 1 where the column
        is constant there). A category becomes one 0/1 feature for each category of `train`; others become all zeros.
        """
        fitted = splits.train.x.numpy().astype(np.int64)

        def records(role: Records) -> Records:
            codes = role.x.numpy().astype(np.int64)
            blocks = [self._block(j, codes[:, j], fitted[:, j]) for j in range(codes.shape[1])]
            x = np.concatenate(blocks, axis=1, dtype=np.float32) if blocks else codes.astype(np.float32)
            return Records(torch.from_numpy(x), role.y, role.name)

        return replace(
            splits,
            train=records(splits.train),
            validation=records(splits.validation),
            holdout=records(splits.holdout),
            shadow=records(splits.shadow),
            canaries=records(splits.canaries),
        )

    def _block(self, j: int, codes: np.ndarray, fitted: np.ndarray) -> Float[np.ndarray, "n features"]:
        table = self.numbers[j]
        if table is None:
            hot: np.ndarray = codes[:, None] == np.unique(fitted)[None, :]
            return hot.astype(np.float32)
        known = table[fitted]
        deviation = float(known.std())
        column: np.ndarray = (table[codes] - known.mean()) / (deviation if deviation > 0 else 1.0)
        return column[:, None]
