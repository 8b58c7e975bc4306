"""`Oracle`: the only window through which an attack sees its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final, get_args

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from edgeward.core.errors import AccessViolation, ConfigError, ModelError
from edgeward.core.threat import Access

# The log of the smallest positive float64: a smaller probability cannot be told from zero.
LOG_FLOOR = -745.0

_OFFERED_WITH: Mapping[str, frozenset[str]] = {
    "label": frozenset({"label"}),
    "confidence": frozenset({"label", "confidence"}),
    "gradients": frozenset({"label", "confidence", "gradients"}),
    "timing": frozenset({"label", "confidence", "timing"}),
    "exits": frozenset({"label", "confidence", "exits"}),
}


def offers(access: str, needed: str) -> bool:
    """Return whether a target that grants `access` also shows what `needed` names.

    >>> offers("confidence", "label"), offers("label", "confidence")
    (True, False)
    """
    if access not in _OFFERED_WITH:
        raise ConfigError(
            f"unknown access '{access}'",
            expected="one of " + ", ".join(get_args(Access)),
            came=repr(access),
            fix='write access = "label" or access = "confidence"',
        )
    return needed in _OFFERED_WITH[access]


def log_softmax(logits: Float64[Tensor, "... C"]) -> Float64[Tensor, "... C"]:
    """Return log softmax over the last axis, no lower than `LOG_FLOOR` (a zero probability stays finite)."""
    return torch.log_softmax(logits, dim=-1).clamp(min=LOG_FLOOR)


@final
class Oracle:
    """A target that answers questions about records, and counts them.

    Guarantee: an attack holding only this object reads no more than `access` names (in this process, by type; the
    Python object itself is not a sandbox). Answers are not cached: every record asked is a query.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], access: Access) -> None:
        """Wrap `run`, which maps records [n, ...] to logits [n, C]."""
        offers(access, "label")
        self._run, self.access = run, access
        self._queries = 0

    @property
    def queries(self) -> int:
        """Number of records asked so far."""
        return self._queries

    def require(self, needed: Access) -> None:
        """Raise `AccessViolation` unless the target grants what `needed` names."""
        if not offers(self.access, needed):
            raise AccessViolation(
                f"the attack reads '{needed}' of a target that does not grant it",
                expected=f"attacks that need only '{self.access}'",
                came=f"a request for '{needed}'",
                fix=f'leave the attack out, or declare access = "{needed}" if the adversary really has it',
            )

    def labels(self, x: np.ndarray) -> Int[Tensor, " n"]:
        """Return the predicted class of each record [n]; needs access "label"."""
        self.require("label")
        return self._answer(x).argmax(dim=1)

    def log_confidences(self, x: np.ndarray) -> Float64[Tensor, "n C"]:
        """Return log softmax of each record's logits in float64 [n, C]; needs access "confidence"."""
        self.require("confidence")
        return log_softmax(self._answer(x))

    def _answer(self, x: np.ndarray) -> Float64[Tensor, "n C"]:
        answer: Any = np.asarray(self._run(x))
        if answer.ndim != 2 or len(answer) != len(x) or answer.shape[1] < 2:
            raise ModelError(
                "the target's answers have the wrong shape",
                expected=f"logits [{len(x)}, at least 2 classes]",
                came=f"an array of shape {list(answer.shape)}",
                fix="let `run` return one row of logits per record",
            )
        logits = torch.tensor(answer, dtype=torch.float64)
        if bool((logits.isnan() | (logits == torch.inf)).any()) or bool((logits.amax(1) == -torch.inf).any()):
            raise ModelError(
                "the target's answers are not numbers",
                expected="logits without NaN or +inf, and at least one finite logit per record",
                came=f"{int((~logits.isfinite()).any(1).sum())} records with other values",
                fix="check that training converged and that the wrapper returns logits",
            )
        self._queries += len(x)
        return logits
