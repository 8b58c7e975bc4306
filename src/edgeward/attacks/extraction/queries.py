"""Label queries: the only view of the victim that stealing has, counted and limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.attacks.oracle import Oracle
from edgeward.core.errors import AccessViolation, ConfigError, ModelError
from edgeward.data.records import Records

Victim: TypeAlias = "Oracle | Callable[[np.ndarray], np.ndarray]"
"""An oracle that grants "label", or a deployment: records [n, ...] float32 to labels [n]."""

CHUNK = 512


@final
class LabelWindow:
    """Labels of one pool of records as the victim gives them; each record is asked at most once, when first needed.

    Attackers never hold this object: they get an `Allowance`.
    """

    def __init__(self, victim: Victim, pool: Records, spans: Mapping[str, range] | None = None) -> None:
        """Wrap the victim; raises `AccessViolation` for an oracle that does not even show labels.

        `spans` says where in the pool inputs of another kind than records lie (`Probes`).
        """
        if isinstance(victim, Oracle):
            victim.require("label")
        self._victim, self.pool = victim, pool
        self.spans = spans or {"records": range(len(pool))}
        self._known = torch.full((len(pool),), -1, dtype=torch.int64)

    @property
    def asked(self) -> int:
        """Number of records the victim itself has answered."""
        return int((self._known >= 0).sum())

    def labels(self, rows: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """Return the victim's labels of the pool's records at `rows`."""
        fresh = torch.unique(rows[self._known[rows] < 0])
        for part in torch.split(fresh, CHUNK) if len(fresh) else ():
            self._known[part] = self._ask(self.pool.x[part].numpy())
        return self._known[rows]

    def allowance(self, budget: int) -> Allowance:
        """Return one attacker's right to `budget` queries."""
        return Allowance(self, budget)

    def _ask(self, x: np.ndarray) -> Tensor:
        if isinstance(self._victim, Oracle):
            return self._victim.labels(x).long()
        answer = np.asarray(self._victim(x))
        if answer.shape != (len(x),) or answer.dtype.kind not in "iu" or (answer < 0).any():
            raise ModelError(
                "the victim's answers are not labels",
                expected=f"{len(x)} class numbers",
                came=f"an array {list(answer.shape)} of {answer.dtype}",
                fix="let the victim return one class number per record, or wrap its logits in an Oracle",
            )
        return torch.from_numpy(answer.astype(np.int64))


@final
class Allowance:
    """One attacker's label queries: every record asked counts, also one asked before; the budget is a hard limit."""

    def __init__(self, window: LabelWindow, budget: int) -> None:
        """Open a budget of at least one query."""
        if budget < 1:
            raise ConfigError("a budget of label queries must be positive", expected="at least 1", came=str(budget))
        self._window, self.budget, self.used = window, budget, 0

    def labels(self, rows: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """Return the victim's labels of the pool's records at `rows`; raises `AccessViolation` beyond the budget."""
        if self.used + len(rows) > self.budget:
            raise AccessViolation(
                "the attack asks more than its budget",
                expected=f"at most {self.budget} label queries",
                came=f"{self.used} asked, {len(rows)} more wanted",
                fix="ask fewer records, or configure a larger budget",
            )
        self.used += len(rows)
        return self._window.labels(rows)
