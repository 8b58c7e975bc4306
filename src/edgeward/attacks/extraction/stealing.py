"""Stealing by label queries: surrogates from what is visible, trained in several ways, the best chosen on own data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from edgeward.attacks.extraction.attacker import VARIANTS, Attacker, Attempt, Theft, Variant
from edgeward.attacks.extraction.exposure import Exposure
from edgeward.attacks.extraction.probing import spread, undecided
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
    with the same seeds are compared on the same queries. `truth`, the classes of the first holdout records, is the
    judge's: with it the best variants in hindsight are trained as well, which no attacker could choose.
    """

    exposure: Exposure
    window: LabelWindow
    holdout: Tensor
    classes: int
    seeds: tuple[Seed, ...]
    attacker: Attacker = field(default_factory=Attacker)
    watcher: Watcher = field(default_factory=Silent)
    truth: Int64[Tensor, " h"] | None = None
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        """Undo the disguises once."""
        self.recovery = recover(self.exposure)
        answer = self.exposure.answer
        own = 0 if answer is None else self.exposure.architecture.values[answer].elements
        self.classes = max(self.classes, own)

    @property
    def sight(self) -> str:
        """The SHA-256 of everything that decides what this thief does, beside seeds and the victim's answers.

        Two exposures of one sight are stolen alike, so that one of them need not be attacked.
        """
        network, known = self.exposure.architecture, self.recovery.tensors
        starts = starting_tensors(self.exposure, known, Seed(0), reset_head=False)
        views = {VARIANTS[name].view for name in self.variants()}
        taps = self.exposure.taps if views - {"answer"} or "spread" in self.attacker.queries else ()
        plain = (
            network.nodes,
            network.inputs,
            self.exposure.answer,
            taps,
            self.variants(),
            self.attacker,
            self.window.pool.digest,
        )
        digest = hashlib.sha256(repr((plain, sorted(self.recovery.missing))).encode())
        for key, tensor in sorted({**network.tensors, **starts}.items()):
            digest.update(key.encode() + tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

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

        Guarantee: each seed asks exactly `budget` labels through an `Allowance`, anew for each way to choose them;
        variant and rate of its own choice are chosen on the attacker's own split, pooled over seeds; it and its rivals
        are trained again on all queries. Cost: variants x rates + 1 + finalists + ways to query, trainings of S models.
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
        mine = search.x[search.choosing.any(0)]
        subject = mine if self.truth is None else torch.cat([mine, self.holdout[: len(self.truth)]])
        tried, hindsight = [], []
        for done, (name, rate) in enumerate(plans, 1):
            logits = self._logits(VARIANTS[name], rate, search, search.learning, subject)
            own = None if logits is None else logits[:, : len(mine)]
            tried.append(self._judged(name, rate, own, search))
            hindsight.append(-1.0 if logits is None else self._hits(logits[:, len(mine) :].argmax(-1)))
            task = f"{self.exposure.name}: {budget} queries"
            self.watcher.step(task, done, len(plans), f"{name} {tried[-1].validation:.1%}")
        chosen = self._trained_again(sorted(tried, key=lambda attempt: attempt.merit, reverse=True), queries, 1)
        if not chosen:
            raise ModelError(
                f"every attack on '{self.exposure.name}' diverged",
                expected="at least one learning rate that trains",
                came=", ".join(f"{name} at {rate}" for name, rate in plans),
                fix="give the attacker lower rates",
            )
        (best, predictions), *_ = chosen
        rivals = dict(chosen)
        if self.truth is not None:
            ranked = sorted(range(len(tried)), key=lambda number: hindsight[number], reverse=True)
            finalists = [tried[number] for number in ranked[: self.attacker.finalists] if tried[number] not in rivals]
            rivals |= dict(self._trained_again(finalists, queries, len(finalists)))
            leader = max(rivals, key=lambda a: self._hits(rivals[a]))
            rivals |= dict(self._asked_otherwise(leader, budget, queries))
        return Theft(budget, best, tuple(tried), predictions, tuple(rivals), torch.stack(list(rivals.values())))

    def _hits(self, predictions: Int64[Tensor, "S h"]) -> float:
        """Return the accuracy of predictions whose first ones are the judge's; 0 without a judge."""
        if self.truth is None:
            return 0.0
        return float(torch.eq(predictions[:, : len(self.truth)], self.truth).double().mean())

    def _trained_again(
        self, attempts: Sequence[Attempt], queries: _Queries, wanted: int
    ) -> list[tuple[Attempt, Int64[Tensor, "S h"]]]:
        """Return the first `wanted` attempts that train on all queries, with their answers on the holdout."""
        found: list[tuple[Attempt, Tensor]] = []
        for attempt in attempts:
            if len(found) == wanted:
                break
            logits = self._logits(VARIANTS[attempt.variant], attempt.rate, queries, queries.asked, self.holdout)
            if logits is not None:
                found.append((attempt, logits.argmax(-1)))
        return found

    def _asked_otherwise(
        self, leader: Attempt, budget: int, queries: _Queries
    ) -> list[tuple[Attempt, Int64[Tensor, "S h"]]]:
        """Return the leading variant trained with every other way to choose queries."""
        if VARIANTS[leader.variant].train == "nothing":
            return []
        found = []
        for way in self.attacker.queries:
            own = None if way == "records" else self._ask_by(way, leader, budget, queries)
            if own is not None:
                attempt = replace(leader, queries=way)
                found += [(attempt, answer) for _, answer in self._trained_again([leader], own, 1)]
        return found

    def _ask_by(self, way: str, leader: Attempt, budget: int, queries: _Queries) -> _Queries | None:
        """Return the queries of another way to choose them; None where there are not enough inputs for it."""
        if way in ("spread", "margin"):
            size, first = len(self.window.spans["records"]), budget // 2
            if way == "spread":
                features = self._prior_features(self.window.pool.x[:size])
                return self._asked([spread(features, budget, seed.child("spread")) for seed in self.seeds])
            start = [self._random("records", first, seed) for seed in self.seeds]
            own = self._asked(start)
            variant = VARIANTS[leader.variant]
            logits = self._logits(variant, leader.rate, own, own.asked, self.window.pool.x[:size])
            if logits is None:
                return None
            rows = []
            for mine, answers_ in zip(start, logits, strict=True):
                rest = torch.ones(size, dtype=torch.bool)
                rest[mine] = False
                left = rest.nonzero()[:, 0]
                rows.append(torch.cat([mine, left[undecided(answers_[left], budget - first)]]))
            return self._asked(rows)
        span = self.window.spans.get(way)
        if span is None or len(span) < budget:
            return None
        return self._asked([self._random(way, budget, seed) for seed in self.seeds])

    def _random(self, way: str, count: int, seed: Seed) -> Int64[Tensor, " m"]:
        span = self.window.spans[way]
        order = torch.randperm(len(span), generator=seed.child("queries").torch())
        return order[:count] + span.start

    @torch.no_grad()
    def _prior_features(self, x: Tensor) -> Float[Tensor, "n F"]:
        """Return the pooled taps of the surrogate as it starts, for choosing queries before any was asked."""
        tensors = starting_tensors(self.exposure, self.recovery.tensors, self.seeds[0].child("start"), reset_head=False)
        return _features(Surrogate(self.exposure.architecture, self.exposure.taps, tensors), x, self.attacker.device)

    def _asked(self, rows: Sequence[Int64[Tensor, " m"]]) -> _Queries:
        """Return queries at `rows` of the pool, one allowance per seed; none of them chooses."""
        size = len(self.window.pool)
        labels, asked = torch.full((size,), -1, dtype=torch.int64), torch.zeros(len(rows), size, dtype=torch.bool)
        for number, own in enumerate(rows):
            labels[own] = self.window.allowance(len(own)).labels(own)
            asked[number, own] = True
        used = asked.any(0)
        return _Queries(self.window.pool.x[used], labels[used], asked[:, used], torch.zeros_like(asked[:, used]))

    def _ask(self, budget: int) -> _Queries:
        size = len(self.window.spans["records"])
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
            own = self._random("records", budget, seed)
            labels[own] = self.window.allowance(budget).labels(own)
            rows.append(own)
        asked, choosing = torch.zeros(2, len(self.seeds), size, dtype=torch.bool)
        for row, own in enumerate(rows):
            asked[row, own] = True
            # Smaller budgets are the first records of larger ones; those that choose are spread over them.
            spread = torch.randperm(budget, generator=self.seeds[row].child("split", budget).torch())[:held_out]
            choosing[row, own[spread]] = True
        used = asked.any(0)
        return _Queries(self.window.pool.x[:size][used], labels[used], asked[:, used], choosing[:, used])

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
        self, variant: Variant, rate: float, queries: _Queries, members: Bool[Tensor, "S u"], subject: Tensor
    ) -> Float[Tensor, "S n C"] | None:
        """Train one variant; return its answers on `subject` [n, ...], None where it diverged."""
        seeds = self.seeds[: len(members)]
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
