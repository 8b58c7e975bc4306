"""Stealing by label queries: surrogates from what is visible, trained in several ways, the best chosen on own data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from edgeward.attacks.extraction.attacker import VARIANTS, Attacker, Attempt, Theft, Variant
from edgeward.attacks.extraction.exposure import Exposure
from edgeward.attacks.extraction.queries import LabelWindow
from edgeward.attacks.extraction.recovery import Recovery, recover
from edgeward.attacks.extraction.surrogate import (
    Monitor,
    Surrogate,
    TapHead,
    head_node,
    parameter_name,
    starting_tensors,
)
from edgeward.attacks.extraction.training import Pinned, answers, trained
from edgeward.attacks.oracle import LOG_FLOOR
from edgeward.core.errors import ConfigError, DataError, ModelError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed

STANDARDISED = 256
"""Records that the monitor's standardisation is taken from."""

Module = TypeVar("Module", bound=nn.Module)


@final
@dataclass(frozen=True, eq=False)
class _Queries:
    """S attackers' queries: x [u, ...] of all, labels [u], who asked what [S, u], and which of it chooses."""

    x: Tensor
    labels: Int64[Tensor, " u"]
    asked: Bool[Tensor, "S u"]
    choosing: Bool[Tensor, "S u"]

    @property
    def learning(self) -> Bool[Tensor, "S u"]:
        return self.asked & ~self.choosing

    def of(self, models: int) -> _Queries:
        """Return the queries of the first attackers only."""
        used = self.asked[:models].any(0)
        return _Queries(self.x[used], self.labels[used], self.asked[:models, used], self.choosing[:models, used])


@final
@dataclass(eq=False)
class Thief:
    """One attacker's view of one exposure, attacking at one budget after the other.

    The random draws (which records are asked, starts, data order) follow `seeds` alone, so that two exposures attacked
    with the same seeds are compared on the same queries.
    """

    exposure: Exposure
    window: LabelWindow
    holdout: Tensor
    classes: int
    seeds: tuple[Seed, ...]
    attacker: Attacker = field(default_factory=Attacker)
    watcher: Watcher = field(default_factory=Silent)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        """Undo the disguises once."""
        self.recovery = recover(self.exposure)
        answer = self.exposure.answer
        own = 0 if answer is None else self.exposure.architecture.values[answer].elements
        self.classes = max(self.classes, own)

    def variants(self) -> tuple[str, ...]:
        """Return the names of the variants that make sense against this exposure."""
        return tuple(name for name in self.attacker.variants if self._applies(VARIANTS[name]))

    def _applies(self, variant: Variant) -> bool:
        if variant.view != "answer":
            shapes = [self.exposure.architecture.values[tap].shape for tap in self.exposure.taps]
            flat = any(len(shape) != 3 for shape in shapes)
            falling = all(a[1:] >= b[1:] for a, b in pairwise(shapes))
            return bool(shapes) and (variant.view == "taps" or (falling and not flat))
        if self.exposure.answer is None:
            return False
        if variant.train == "hidden":
            return bool(self.recovery.tensors) and bool(self._unknown() or self.recovery.missing)
        return variant.head == "keep" or head_node(self.exposure) is not None

    def _unknown(self) -> tuple[str, ...]:
        """Keys of learned tensors that the attacker has no trace of."""
        known = self.recovery.tensors
        return tuple(k for k in (*self.exposure.hidden, *self.exposure.visible) if k not in known)

    def steal(self, budget: int) -> Theft:
        """Return the stolen models at `budget` label queries per seed.

        Guarantee: each seed asks exactly `budget` labels through an `Allowance`; variant and rate are chosen on the
        attacker's own split, pooled over seeds (which favours the attacker slightly); the winner is trained again on
        all its queries. Cost: variants x rates + 1 trainings of S models.
        """
        queries = self._ask(budget)
        search = queries.of(self.attacker.search_seeds or len(self.seeds))
        plans = [(name, rate) for name in self.variants() for rate in self._rates(VARIANTS[name])]
        if not plans:
            raise ConfigError(
                "no variant of the attack fits this exposure",
                expected="an answer, or taps, that the chosen variants can use",
                came=", ".join(self.attacker.variants),
                fix="leave `variants` at its default",
            )
        tried = []
        for done, (name, rate) in enumerate(plans, 1):
            logits = self._logits(VARIANTS[name], rate, search, search.learning, search.choosing.any(0))
            tried.append(self._judged(name, rate, logits, search))
            task = f"{self.exposure.name}: {budget} queries"
            self.watcher.step(task, done, len(plans), f"{name} {tried[-1].validation:.1%}")
        for best in sorted(tried, key=lambda attempt: attempt.merit, reverse=True):
            logits = self._logits(VARIANTS[best.variant], best.rate, queries, queries.asked, None)
            if logits is not None:
                return Theft(budget, best, tuple(tried), logits.argmax(-1))
        raise ModelError(
            f"every attack on '{self.exposure.name}' diverged",
            expected="at least one learning rate that trains",
            came=", ".join(f"{name} at {rate}" for name, rate in plans),
            fix="give the attacker lower rates",
        )

    def _ask(self, budget: int) -> _Queries:
        size = len(self.window.pool)
        if budget > size or budget < 2:
            raise DataError(
                "the query pool does not fit the budget",
                expected=f"from 2 to {size} label queries (the pool holds {size} records)",
                came=f"{budget}",
                fix="give a larger pool of records that are in no other role, or smaller budgets",
            )
        held_out = self.attacker.choosing(budget)
        rows, labels = [], torch.full((size,), -1, dtype=torch.int64)
        for seed in self.seeds:
            own = torch.randperm(size, generator=seed.child("queries").torch())[:budget]
            labels[own] = self.window.allowance(budget).labels(own)
            rows.append(own)
        asked, choosing = torch.zeros(2, len(self.seeds), size, dtype=torch.bool)
        for row, own in enumerate(rows):
            asked[row, own] = True
            # Smaller budgets are the first records of larger ones; those that choose are spread over them.
            spread = torch.randperm(budget, generator=self.seeds[row].child("split", budget).torch())[:held_out]
            choosing[row, own[spread]] = True
        used = asked.any(0)
        return _Queries(self.window.pool.x[used], labels[used], asked[:, used], choosing[:, used])

    def _rates(self, variant: Variant) -> tuple[float, ...]:
        if variant.train == "nothing":
            return (0.0,)
        if variant.train == "hidden" and self.recovery.missing and not self._unknown():
            return self.attacker.entry_rates
        return self.attacker.head_rates if variant.train == "head" else self.attacker.rates

    def _judged(self, name: str, rate: float, logits: Float[Tensor, "S v C"] | None, queries: _Queries) -> Attempt:
        if logits is None:
            return Attempt(name, rate, 0.0, LOG_FLOOR)
        rows = queries.choosing.any(0)
        mine, labels = queries.choosing[:, rows], queries.labels[rows].expand(len(logits), -1)
        hit = (logits.argmax(-1) == labels)[mine].double().mean()
        likely = torch.log_softmax(logits.double(), -1).gather(-1, labels[..., None])[..., 0][mine].mean()
        return Attempt(name, rate, float(hit), float(likely))

    def _logits(
        self, variant: Variant, rate: float, queries: _Queries, members: Bool[Tensor, "S u"], rows: Tensor | None
    ) -> Float[Tensor, "S n C"] | None:
        """Train one variant; return its answers on the queries at `rows`, or on the holdout for None.

        None: it diverged.
        """
        seeds = self.seeds[: len(members)]
        subject = self.holdout if rows is None else queries.x[rows]
        schedule = self.attacker.schedule(int(members.sum(1).max()), rate or 1.0)
        fitting = partial(
            trained,
            seeds=tuple(seed.child("train") for seed in seeds),
            schedule=schedule,
            classes=self.classes,
            device=self.attacker.device,
        )
        if variant.train == "head" and variant.view != "images":
            return self._head_logits(variant, queries, members, subject, fitting)
        models = [self._model(variant, seed, queries.x[mask]) for seed, mask in zip(seeds, members, strict=True)]
        every = frozenset(name for name, _ in models[0].named_parameters())
        tuned, parts = every, self.attacker.parts()
        if variant.train == "hidden":
            tuned = frozenset(parameter_name(k) for k in (*self._unknown(), *self.recovery.missing))
            known = {parameter_name(k): ~gone for k, gone in self.recovery.missing.items()}
            parts += [Pinned(known)] if known else []
        if variant.train == "head":
            tuned = frozenset(name for name in every if name.startswith("head."))
        frozen = every if variant.train == "nothing" else every - tuned
        return answers(fitting(models, frozen, queries.x, queries.labels, members, parts=parts), subject)

    def _model(self, variant: Variant, seed: Seed, own: Tensor) -> Surrogate:
        exposure, start = self.exposure, seed.child("start")
        tensors = starting_tensors(exposure, self.recovery.tensors, start, reset_head=variant.head == "reset")
        if variant.view == "answer":
            return Surrogate(exposure.architecture, (str(exposure.answer),), tensors)
        bare = Surrogate(exposure.architecture, exposure.taps, tensors)
        if variant.view == "images":
            return Surrogate(exposure.architecture, exposure.taps, tensors, self._monitor(bare, own, start))
        features = _features(bare, own, self.attacker.device)
        head = _seeded(lambda: TapHead(features.shape[1], self.classes, self.attacker.hidden_units), start)
        return Surrogate(exposure.architecture, exposure.taps, tensors, head.standardised(features))

    @torch.no_grad()
    def _monitor(self, bare: Surrogate, own: Tensor, seed: Seed) -> Monitor:
        """Return a fresh monitor standardised on some of the attacker's own records."""
        taps = bare.run(own[:STANDARDISED])
        channels = tuple(tap.shape[1] for tap in taps)
        monitor = _seeded(partial(Monitor, channels, self.classes, self.attacker.monitor_width), seed)
        return monitor.standardised(taps)

    def _head_logits(
        self,
        variant: Variant,
        queries: _Queries,
        members: Bool[Tensor, "S u"],
        subject: Tensor,
        fitting: Callable[..., Any],
    ) -> Float[Tensor, "S n C"] | None:
        """Train heads on features computed once; flips are a second copy of each record."""
        source = self._source(variant)
        device = self.attacker.device
        copies = [queries.x, queries.x.flip(-1)] if self.attacker.flips and queries.x.dim() == 4 else [queries.x]
        features = torch.cat([_features(source, copy, device) for copy in copies])
        labels, who = queries.labels.repeat(len(copies)), members.repeat(1, len(copies))
        hidden = self.attacker.hidden_units if variant.view == "taps" else 0
        heads: list[nn.Module] = []
        for seed, mask in zip(self.seeds, who, strict=False):
            width = features.shape[1]
            head = _seeded(partial(TapHead, width, self.classes, hidden), seed.child("start"))
            heads.append(head.standardised(features[mask]))
        population = fitting(heads, frozenset(), features, labels, who, parts=[])
        return answers(population, _features(source, subject, device), chunk=4096)

    def _source(self, variant: Variant) -> Surrogate:
        """Return the fixed network whose features heads are trained on."""
        exposure = self.exposure
        tensors = starting_tensors(exposure, self.recovery.tensors, self.seeds[0].child("start"), reset_head=False)
        if variant.view == "taps":
            return Surrogate(exposure.architecture, exposure.taps, tensors)
        head = head_node(exposure)
        if head is None:
            raise ConfigError("this architecture does not end in a linear layer", fix="use the variants on taps")
        return Surrogate(exposure.architecture, (head.inputs[0],), tensors)


@torch.no_grad()
def _features(source: Surrogate, x: Tensor, device: str, chunk: int = 256) -> Float[Tensor, "n F"]:
    source = source.to(device).eval()
    found = torch.cat([source(part.to(device)).cpu() for part in torch.split(x, chunk)])
    source.to("cpu")
    return found


def _seeded(make: Callable[[], Module], seed: Seed) -> Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.value)
        return make()


def seeds_of(seeds: Sequence[Seed] | int) -> tuple[Seed, ...]:
    """Return the seeds themselves, or so many independent ones."""
    return tuple(Seed(0).child("attacker", s) for s in range(seeds)) if isinstance(seeds, int) else tuple(seeds)
