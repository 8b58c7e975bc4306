"""`Attack`: fits on what the attacker knows, then scores points by asking the target's oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.attacks.statistics import evaluate
from edgeward.core.errors import DataError, ModelError
from edgeward.core.registry import Registry
from edgeward.core.threat import Access


@final
@dataclass(frozen=True, eq=False)
class Points:
    """Records to judge: `records` [m, ...], `index` [m] their places among the audited points of the signals.

    `population` [z, ...] are the population's records in the signals' order; attacks that calibrate on it ask them too.
    """

    records: np.ndarray
    index: Int[Tensor, " m"]
    population: np.ndarray

    def __post_init__(self) -> None:
        """Refuse an index that does not match the records."""
        if len(self.records) != len(self.index):
            raise DataError(
                "the points do not match their index",
                expected=f"{len(self.index)} records",
                came=f"{len(self.records)}",
                fix="give one index into the audited points per record",
            )

    @classmethod
    def recorded(cls, audited: int, population: int) -> Points:
        """Return points whose records are row numbers of recorded logits: the audited ones, then the population."""
        rows = np.arange(audited + population)
        return cls(rows[:audited], torch.arange(audited), rows[audited:])


Rule = Callable[[Oracle, Points], Float64[Tensor, " m"]]


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """An attack that has seen its shadow models and waits for a target."""

    name: str
    access: Access
    rule: Rule

    def score(self, oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
        """Return one number per point, larger = more likely a member.

        Raises: `AccessViolation` when the oracle grants less than the attack's access; `ModelError` on NaN scores.
        """
        oracle.require(self.access)
        scores = self.rule(oracle, points)
        if bool(scores.isnan().any()):
            raise ModelError(
                f"attack '{self.name}' gave scores that are not numbers",
                expected="one number per point",
                came=f"{int(scores.isnan().sum())} NaN",
                fix="report this with the attack's settings; leave the attack out meanwhile",
            )
        return scores


class Attack(ABC):
    """A membership attack; subclasses are final frozen dataclasses whose fields are its hyper-parameters."""

    slug: ClassVar[str]
    access: ClassVar[Access]

    @property
    def name(self) -> str:
        """The attack with its variant, as reports print it."""
        return self.slug

    @abstractmethod
    def rule(self, knowledge: Knowledge) -> Rule:
        """Learn from the shadow models and return how points are scored."""

    def fit(self, knowledge: Knowledge) -> Fitted:
        """Return the attack fitted to what the attacker knows; the attack itself stays unchanged."""
        return Fitted(self.name, self.access, self.rule(knowledge))


ATTACKS: Registry[Attack] = Registry("attack")


def enlist(*attacks: Attack) -> None:
    """Enter attacks, with their settings, under their names."""
    for attack in attacks:
        ATTACKS.register(attack.name)(attack)


def observe(
    oracle: Oracle, points: Points, knowledge: Knowledge, statistic: str, *, temperature: float = 1.0
) -> Float64[Tensor, " m"]:
    """Ask the target about the points and return one statistic of its answers; one query per point."""
    log_p = oracle.log_confidences(points.records)
    return evaluate(statistic, log_p, knowledge.labels[points.index], temperature=temperature)
