"""`Scored`: every attack's score of every audited record under every model, for one kind of records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from edgeward.attacks.clusters import Clusters
from edgeward.core.errors import DataError


@final
@dataclass(frozen=True, eq=False)
class Scored:
    """Scores [S, n] by attack, `truth` [S, n] (True where model s trained on record i), and who depends on whom.

    Records with equal `groups` [n] are in or out together; without it each record is a group of its own. `models` [S]
    numbers the models. Where several kinds are compared, equal numbers in two kinds mean the same group or model.
    Raises: `DataError` listing everything that does not fit.
    """

    # Plain types: `__post_init__` checks the shapes, in every run, and reports all of them together.
    scores: Mapping[str, Tensor]
    truth: Tensor
    groups: Tensor | None = None
    models: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse scores that do not fit the truth, and groups that are not in or out together."""
        problems = [
            f"scores of '{name}' have shape {list(s.shape)}"
            for name, s in self.scores.items()
            if s.shape != self.truth.shape
        ]
        problems += [] if self.scores else ["no attack"]
        problems += self._cluster_problems()
        if problems:
            raise DataError(
                "these scores cannot be compared: " + "; ".join(problems),
                expected=f"one attack or more with scores {list(self.truth.shape)}, groups in or out together",
                came=f"{len(problems)} of them otherwise",
                fix="pass the scores of one audit with the groups and models of its records",
            )

    def _cluster_problems(self) -> list[str]:
        models, records = self.truth.shape
        different = models if self.models is None else len(set(self.models.tolist()))
        problems = [] if different == models else [f"{different} different models for {models} rows"]
        if self.groups is not None and self.groups.shape != (records,):
            return [*problems, f"{len(self.groups)} groups for {records} records"]
        if self.groups is not None:
            number = torch.unique(self.groups, return_inverse=True)[1]
            members = torch.zeros(models, int(number.max()) + 1, dtype=torch.int64)
            members.index_add_(1, number, self.truth.long())
            torn = int(((members > 0) & (members < torch.bincount(number))).any(0).sum())
            problems += [f"{torn} groups are neither in nor out of some model"] if torn else []
        return problems

    @property
    def clusters(self) -> Clusters:
        """Model and group of each trial, row by row."""
        models, records = self.truth.shape
        groups = torch.arange(records) if self.groups is None else self.groups
        return Clusters.of(torch.arange(models).numpy(), groups.numpy())
