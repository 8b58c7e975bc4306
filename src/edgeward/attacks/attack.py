"""`Attack`: fits on what the attacker knows, then scores points by asking the target's oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Knowledge
from edgeward.attacks.statistics import evaluate
from edgeward.core.errors import DataError, ModelError, unknown_name
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
    audited: int
    population: int

    def score(self, oracle: Oracle, points: Points) -> Float64[Tensor, " m"]:
        """Return one number per point, larger = more likely a member.

        Raises: `AccessViolation` when the oracle grants less than the attack's access; `DataError` for points that are
        not among the audited ones or another population; `ModelError` on NaN scores.
        """
        oracle.require(self.access)
        self._check(points)
        scores = self.rule(oracle, points)
        if bool(scores.isnan().any()):
            raise ModelError(
                f"attack '{self.name}' gave scores that are not numbers",
                expected="one number per point",
                came=f"{int(scores.isnan().sum())} NaN",
                fix="report this with the attack's settings; leave the attack out meanwhile",
            )
        return scores

    def _check(self, points: Points) -> None:
        strange = int(((points.index < 0) | (points.index >= self.audited)).sum())
        if strange or len(points.population) != self.population:
            raise DataError(
                "these points are not those the attack was fitted for",
                expected=f"indices in 0..{self.audited - 1} and {self.population} population records",
                came=f"{strange} indices outside, {len(points.population)} population records",
                fix="pass the records whose answers the signals hold, in the signals' order",
            )


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
        rule = self.rule(knowledge)
        return Fitted(self.name, self.access, rule, len(knowledge.labels), len(knowledge.population_labels))


ATTACKS: Registry[Attack] = Registry("attack")


def enlist(*attacks: Attack) -> None:
    """Enter attacks, with their settings, under their names."""
    for attack in attacks:
        ATTACKS.register(attack.name)(attack)


def require_one_of(kind: str, value: str, known: Iterable[str]) -> None:
    """Raise a `ConfigError` naming the nearest known value unless `value` is one of them."""
    names = tuple(known)
    if value not in names:
        raise unknown_name(kind, value, names)


def observe(
    oracle: Oracle, points: Points, knowledge: Knowledge, statistic: str, *, temperature: float = 1.0
) -> Float64[Tensor, " m"]:
    """Ask the target about the points and return one statistic of its answers; one query per point."""
    log_p = oracle.log_confidences(points.records)
    return evaluate(statistic, log_p, knowledge.labels[points.index], temperature=temperature)
