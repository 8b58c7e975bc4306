"""`Attacker`: how hard stealing tries, in which variants, and what it brings home."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.attacks.extraction.probing import QUERIES
from edgeward.attacks.extraction.training import Jitter
from edgeward.core.errors import ConfigError, unknown_name
from edgeward.train.part import Part, Schedule


@final
@dataclass(frozen=True)
class Variant:
    """One way to attack: from which view, with which head, training what.

    `view`: the architecture's own answer, its pooled taps with the attacker's own head, or its taps as images with a
    convolutional monitor; `head`: kept as found, or new; `train`: all tensors, only the hidden ones, only the head, or
    nothing.
    """

    view: Literal["answer", "taps", "images"]
    head: Literal["keep", "reset"]
    train: Literal["all", "hidden", "head", "nothing"]


VARIANTS: Mapping[str, Variant] = {
    "as it is": Variant("answer", "keep", "nothing"),
    "fine-tuned": Variant("answer", "keep", "all"),
    "fine-tuned with a new head": Variant("answer", "reset", "all"),
    "hidden part trained": Variant("answer", "keep", "hidden"),
    "new head": Variant("answer", "reset", "head"),
    "head on taps": Variant("taps", "reset", "head"),
    "head and taps trained": Variant("taps", "reset", "all"),
    "monitor on taps": Variant("images", "reset", "head"),
}


@final
@dataclass(frozen=True)
class Attacker:
    """How hard the attacker tries: the same for every deployment that is compared.

    `rates` are tried for whole networks, `head_rates` for heads and monitors alone, `entry_rates` for the missing
    entries of tensors that are known otherwise (few and large), with Adam and cosine decay for `epochs`, and at least
    `steps` steps. `validation` is the share of the attacker's own queries that choose; of small budgets up to half, so
    that 25 records choose. `flips` and `shift` (pixels) augment images. `search_seeds` limits the seeds that take part
    in choosing (None: all). `finalists` is how many variants, the best by the holdout itself, are trained again with
    all queries; the best of these once more with each way of `queries` to choose what is asked.
    """

    rates: tuple[float, ...] = (3e-3, 1e-3, 3e-4)
    head_rates: tuple[float, ...] = (1e-2, 1e-3)
    entry_rates: tuple[float, ...] = (1e-1, 1e-2)
    epochs: int = 30
    steps: int = 200
    batch: int = 64
    validation: float = 0.2
    flips: bool = False
    shift: int = 0
    hidden_units: int = 64
    monitor_width: int = 24
    search_seeds: int | None = None
    finalists: int = 2
    queries: tuple[str, ...] = tuple(QUERIES)
    variants: tuple[str, ...] = tuple(VARIANTS)
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse settings that cannot attack."""
        for name in self.variants:
            if name not in VARIANTS:
                raise unknown_name("attack variant", name, VARIANTS)
        for name in self.queries:
            if name not in QUERIES:
                raise unknown_name("way to choose queries", name, QUERIES)
        tried = (self.variants, self.rates, self.head_rates, self.entry_rates)
        rules = {
            "at least one variant and one rate of each kind": all(tried),
            "validation above 0 and below 1": 0 < self.validation < 1,
            "'records' among the queries": "records" in self.queries,
            "at least one finalist": self.finalists >= 1,
            "epochs, steps and batch of at least 1": min(self.epochs, self.steps, self.batch) >= 1,
            "search_seeds of at least 1": self.search_seeds is None or self.search_seeds >= 1,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError("the attacker cannot attack", expected="; ".join(broken), came=repr(self))

    def choosing(self, budget: int) -> int:
        """Return how many of `budget` queries choose variant and rate."""
        return max(1, round(budget * self.validation), min(25, budget // 2))

    def schedule(self, records: int, rate: float) -> Schedule:
        """Return the schedule for so many training records."""
        per_epoch = max(1, math.ceil(records / self.batch))
        epochs = max(self.epochs, math.ceil(self.steps / per_epoch))
        return Schedule(epochs=epochs, batch=self.batch, rate=rate, optimizer="adam", decay="cosine")

    def parts(self) -> list[Part]:
        """Return the augmentation."""
        return [Jitter(self.flips, self.shift)] if self.flips or self.shift else []

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@final
@dataclass(frozen=True)
class Attempt:
    """One variant at one rate: accuracy and mean log likelihood of the victim's labels on the attacker's own split.

    `queries` says how what was asked was chosen.
    """

    variant: str
    rate: float
    validation: float
    likelihood: float
    queries: str = "records"

    @property
    def merit(self) -> tuple[float, float]:
        """What attempts are chosen by: accuracy, then likelihood."""
        return self.validation, self.likelihood


@final
@dataclass(frozen=True, eq=False)
class Theft:
    """The stolen models of one budget: what the attacker itself would choose, and its rivals in hindsight.

    `predictions` [S, h] of its own choice on the holdout; `every` [V, S, h] those of `rivals`, all trained with all
    queries, its own choice first: the judge may take the best of them. `tried` is all that was searched.
    """

    budget: int
    best: Attempt
    tried: tuple[Attempt, ...]
    predictions: Int64[Tensor, "S h"]
    rivals: tuple[Attempt, ...]
    every: Int64[Tensor, "V S h"]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form without the predictions."""
        lines = {"tried": self.tried, "rivals": self.rivals}
        return {
            "budget": self.budget,
            "best": asdict(self.best),
            **{k: [asdict(a) for a in v] for k, v in lines.items()},
        }

    @staticmethod
    def strongest(thefts: Sequence[Theft]) -> Theft:
        """Return the theft of an attacker who tried all `thefts` of one budget: what it rates best comes first."""
        first = max(thefts, key=lambda theft: theft.best.merit)
        every = [first, *(theft for theft in thefts if theft is not first)]
        return replace(
            first,
            tried=tuple(attempt for theft in every for attempt in theft.tried),
            rivals=tuple(attempt for theft in every for attempt in theft.rivals),
            every=torch.cat([theft.every for theft in every]),
        )

    def upto(self, start: int, stop: int) -> Theft:
        """Return the theft judged by the records from `start` to `stop` only."""
        return replace(self, predictions=self.predictions[:, start:stop], every=self.every[..., start:stop])
