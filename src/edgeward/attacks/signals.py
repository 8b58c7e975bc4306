"""`Signals`: what sibling models answer about the audited points; `Knowledge`: what the attacker of one of them has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from edgeward.attacks.oracle import log_softmax
from edgeward.attacks.statistics import evaluate
from edgeward.core.errors import ConfigError, DataError

_Key = tuple[str, str, float]


@final
@dataclass(frozen=True, eq=False)
class Signals:
    """The answers of S sibling models on the n audited points and on z records that no model trained on.

    Shapes: `logits` [S, n, C]; `labels` [n]; `keep` [S, n], True where model s trained on point i;
    `reference_logits` [S, z, C] and `reference_labels` [z] (the population). Kept on the CPU; holds no record.
    Raises: `DataError` listing everything that is wrong.
    """

    # Plain types: `__post_init__` checks the shapes, in every run, and reports all of them together.
    logits: Tensor
    labels: Tensor
    keep: Tensor
    reference_logits: Tensor
    reference_labels: Tensor
    _memo: dict[_Key, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Move everything to the CPU and refuse signals that no attack can be judged on."""
        for name in ("logits", "labels", "keep", "reference_logits", "reference_labels"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).detach().cpu())
        problems = self._shape_problems() or self._value_problems()
        if problems:
            raise DataError(
                "the signals cannot be audited:\n  " + "\n  ".join(problems),
                expected="logits [S, n, C], labels [n], keep [S, n], reference_logits [S, z, C], reference_labels [z]",
                fix="train at least 4 siblings, each audited point in half of them, and record all of them alike",
            )

    def _shape_problems(self) -> list[str]:
        if self.logits.ndim != 3:
            return [f"logits have shape {list(self.logits.shape)}, expected three axes [S, n, C]"]
        s, n, c = self.logits.shape
        z = self.reference_labels.numel()
        wanted = {"labels": [n], "keep": [s, n], "reference_logits": [s, z, c], "reference_labels": [z]}
        found = {name: list(getattr(self, name).shape) for name in wanted}
        problems = [f"{k} have shape {found[k]}, expected {wanted[k]}" for k in wanted if found[k] != wanted[k]]
        problems += ["keep is not boolean"] if self.keep.dtype != torch.bool else []
        if min(s, n, z) < 1 or c < 2:
            problems.append(f"{s} models, {n} points, {z} population records, {c} classes: expected 1, 1, 1, 2 or more")
        return problems

    def _value_problems(self) -> list[str]:
        problems = []
        for name in ("logits", "reference_logits"):
            values = getattr(self, name)
            bad = values.isnan() | (values == torch.inf) | (values.amax(-1, keepdim=True) == -torch.inf)
            if bool(bad.any()):
                problems.append(f"{name}: {int(bad.any(-1).sum())} rows hold NaN, +inf or only -inf")
        for name in ("labels", "reference_labels"):
            labels = getattr(self, name)
            if labels.is_floating_point() or labels.dtype == torch.bool:
                problems.append(f"{name}: expected integers, came {labels.dtype}")
            outside = (labels < 0) | (labels >= self.logits.shape[2])
            if bool(outside.any()):
                problems.append(f"{name}: {int(outside.sum())} outside 0..{self.logits.shape[2] - 1}")
        inside = self.keep.sum(0)
        few = int(((inside < 2) | (len(self.keep) - inside < 2)).sum())
        if few:
            problems.append(f"keep: {few} points are in, or out of, fewer than 2 of the {len(self.keep)} models")
        one_sided = int((self.keep.all(1) | ~self.keep.any(1)).sum())
        if one_sided:
            problems.append(f"keep: {one_sided} models have no member or no non-member among the points")
        return problems

    @property
    def digest(self) -> str:
        """SHA-256 over shapes, types and bytes of all five tensors."""
        found = hashlib.sha256()
        for tensor in (self.logits, self.labels, self.keep, self.reference_logits, self.reference_labels):
            found.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def __len__(self) -> int:
        """Return S."""
        return len(self.logits)

    def knowledge(self, target: int | None = None, *, limit: int | None = None, adaptive: bool = True) -> Knowledge:
        """Return what the attacker of model `target` has: its siblings; all S models for a target that is none of them.

        `limit` leaves each point at most limit // 2 models that trained on it and as many that did not. Every point
        gets as many IN as OUT models: with balanced membership the plain count of IN siblings would give it away.
        """
        if limit is not None and limit < 2:
            raise ConfigError("limit leaves no shadow model", expected="at least 2", came=str(limit), fix="limit = 2")
        order = range(len(self)) if target is None else [(target + k) % len(self) for k in range(1, len(self))]
        shadows = torch.tensor(list(order))
        keep = self.keep[shadows]
        most = torch.minimum(keep.sum(0), (~keep).sum(0))
        most = most if limit is None else most.clamp(max=limit // 2)
        inside = keep & (keep.cumsum(0) <= most)
        outside = ~keep & ((~keep).cumsum(0) <= most)
        return Knowledge(self, shadows, inside, outside, adaptive)

    def statistic(self, name: str, rows: Int[Tensor, " K"], temperature: float) -> Float64[Tensor, "K n"]:
        """Return the statistic of the models `rows` on the audited points."""
        return self._recorded("audited", name, temperature)[rows]

    def population_statistic(self, name: str, rows: Int[Tensor, " K"], temperature: float) -> Float64[Tensor, "K z"]:
        """Return the statistic of the models `rows` on the population."""
        return self._recorded("population", name, temperature)[rows]

    def _recorded(self, where: str, name: str, temperature: float) -> Tensor:
        key = (where, name, temperature)
        if key not in self._memo:
            audited = where == "audited"
            logits, labels = (self.logits, self.labels) if audited else (self.reference_logits, self.reference_labels)
            # One model at a time: float64 copies of all logits at once would be the largest tensors of an audit.
            rows = [evaluate(name, log_softmax(row.double()), labels.long(), temperature=temperature) for row in logits]
            self._memo[key] = torch.stack(rows)
        return self._memo[key]


@final
@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the attacker has of K shadow models; it never reads the target's row of the signals.

    Shapes: `shadows` [K]; `inside` and `outside` [K, n], the IN and OUT models used for each point, equally many.
    `adaptive` says whether the shadow models went through the target's own recipe.
    """

    _signals: Signals
    shadows: Int[Tensor, " K"]
    inside: Bool[Tensor, "K n"]
    outside: Bool[Tensor, "K n"]
    adaptive: bool = True

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Labels of the audited points [n]."""
        return self._signals.labels.long()

    @property
    def population_labels(self) -> Int[Tensor, " z"]:
        """Labels of the population [z]."""
        return self._signals.reference_labels.long()

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self._signals.logits.shape[2]

    def statistic(self, name: str, *, temperature: float = 1.0) -> Float64[Tensor, "K n"]:
        """Return the statistic called `name` of every shadow model on the audited points."""
        return self._signals.statistic(name, self.shadows, temperature)

    def population_statistic(self, name: str, *, temperature: float = 1.0) -> Float64[Tensor, "K z"]:
        """Return the statistic called `name` of every shadow model on the population."""
        return self._signals.population_statistic(name, self.shadows, temperature)
