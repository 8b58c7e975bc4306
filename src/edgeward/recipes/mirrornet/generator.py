"""`generate`: the strategy generator: coarse on the emulator alone, fine with short trainings, the best in full."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from edgeward.backends.tee.emulator import Emulator
from edgeward.core.errors import ConfigError, NoFeasibleCandidate
from edgeward.core.progress import Silent, Watcher
from edgeward.graph.network import Network
from edgeward.recipes.mirrornet.mirroring import Mirrored, mirror
from edgeward.recipes.mirrornet.proposals import MIRRORED, changed, every_subset
from edgeward.recipes.mirrornet.proxy import FeatureBank, proxy_accuracy
from edgeward.recipes.mirrornet.scoring import Limits, Score, pareto, score
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.part import Schedule
from edgeward.train.task import Task


@final
@dataclass(frozen=True)
class Search:
    """How far the generator looks: coarse widths and kinds, then generations of the evolutionary pass.

    `parents` survive each generation and bear `children`; a proxy trains `epochs` on `records` stored features.
    """

    widths: tuple[int, ...] = (8, 16, 32)
    kinds: tuple[str, ...] = MIRRORED
    parents: int = 4
    children: int = 6
    generations: int = 3
    epochs: int = 3
    records: int = 2000
    full: int = 3

    def __post_init__(self) -> None:
        """Refuse a search that finds nothing."""
        counts = (self.parents, self.children, self.epochs, self.records, self.full, len(self.widths), len(self.kinds))
        if min(counts) < 1 or self.generations < 0:
            raise ConfigError("the search cannot run", expected="at least 1 of everything", came=repr(self))


@final
@dataclass(frozen=True, eq=False)
class Found:
    """One fully trained strategy with its modelled figures and accuracies on the validation records."""

    strategy: Strategy
    score: Score
    proxy: float
    authorised: float
    direct: float | None
    mirrored: Mirrored

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, without the networks."""
        rest = {"proxy": self.proxy, "authorised": self.authorised, "direct": self.direct}
        return {"strategy": self.strategy.to_json(), "score": self.score.to_json(), **rest}


def generate(
    victim: Network,
    base: Strategy,
    task: Task,
    emulator: Emulator,
    limits: Limits,
    *,
    workdir: Path,
    public: Network | None = None,
    search: Search | None = None,
    watcher: Watcher | None = None,
) -> tuple[Found, ...]:
    """Propose, estimate and train strategies for `victim`; return the fully trained ones, most accurate first.

    `base` gives preset, transfer, gap and temperature; its blocks are replaced. Coarse: every subset of stages x widths
    x kinds, and copies of the last stages, by the emulator alone; what breaks a limit or is dominated (overhead, secure
    memory, capacity) goes. Fine: evolution from there, fitness = accuracy after a short training on stored features.
    The best `full` are trained in full.

    Everything found is kept in `workdir` (coarse.json, fine.json, one file per strategy): a second call continues, with
    the same result. Deterministic for one seed of `task`.
    Guarantee: limits are modelled ones. How well a strategy resists stealing is for the audit to measure.
    Raises: `NoFeasibleCandidate` with the nearest miss where no strategy keeps the limits.
    """
    search, watcher = search or Search(), watcher or Silent()
    record = _Notebook(workdir, _fingerprint(victim, base, limits, search, task, emulator))
    at = base.divided(victim)
    scores = record.scores
    for number, strategy in enumerate(every_subset(at, base, search.widths, search.kinds), 1):
        _scored(record, victim, strategy, emulator)
        watcher.step("coarse pass", number, 0, strategy.name)
    feasible = {name: s for name, s in scores.items() if s is not None and limits.kept_by(s)}
    if not feasible:
        raise _nearest_miss(scores, limits)
    front = sorted(pareto(feasible), key=lambda name: -feasible[name].capacity)
    backbone = public if base.preset == "public" and public is not None else victim
    bank = FeatureBank(victim, backbone, task, search.records)
    ranked = _evolved(record, bank, victim, front[: 2 * search.parents], emulator, limits, search, watcher)
    found = [_trained(record, name, victim, task, public) for name in ranked[: search.full]]
    found.sort(key=lambda f: (-f.authorised, f.score.overhead, f.strategy.name))
    record.write("final.json", [f.to_json() for f in found])
    return tuple(found)


def _evolved(
    record: _Notebook,
    bank: FeatureBank,
    victim: Network,
    start: list[str],
    emulator: Emulator,
    limits: Limits,
    search: Search,
    watcher: Watcher,
) -> list[str]:
    """Return the names of the strategies with a proxy accuracy, best first."""
    schedule = Schedule(search.epochs, 50, 5e-3, decay="cosine")
    rng = bank.task.seed.child("evolution").numpy()
    alive = list(start)
    for generation in range(search.generations + 1):
        for name in alive:
            if name not in record.proxies:
                record.keep_proxy(name, proxy_accuracy(bank, record.strategies[name], schedule))
            watcher.step("fine pass", generation, search.generations, f"{name}: {record.proxies[name]:.3f}")
        parents = sorted(alive, key=lambda name: (-record.proxies[name], name))[: search.parents]
        alive = list(parents)
        for child in range(search.children if generation < search.generations else 0):
            strategy = changed(record.strategies[parents[child % len(parents)]], bank.at, rng)
            found = _scored(record, victim, strategy, emulator)
            if found is not None and limits.kept_by(found) and strategy.name not in alive:
                alive.append(strategy.name)
    return sorted(set(record.proxies), key=lambda name: (-record.proxies[name], name))


def _scored(record: _Notebook, victim: Network, strategy: Strategy, emulator: Emulator) -> Score | None:
    if strategy.name not in record.scores:
        record.keep_score(strategy, score(victim, strategy.divided(victim), strategy, emulator))
    return record.scores[strategy.name]


def _trained(record: _Notebook, name: str, victim: Network, task: Task, public: Network | None) -> Found:
    strategy, figures = record.strategies[name], record.scores[name]
    mirrored = mirror(victim, strategy, task, public=public)
    strategy.write(record.folder / f"{name}.json")
    x, y = task.validation or (task.x, task.y)
    if figures is None:
        raise ConfigError(f"the strategy '{name}' does not fit the network")
    return Found(
        strategy, figures, record.proxies[name], mirrored.accuracy(x, y), mirrored.direct_accuracy(x, y), mirrored
    )


def _nearest_miss(scores: Mapping[str, Score | None], limits: Limits) -> NoFeasibleCandidate:
    known = {name: s for name, s in scores.items() if s is not None}
    name = min(known, key=lambda n: max(known[n].overhead / limits.overhead, known[n].secure_ram / limits.secure_ram))
    near = known[name]
    return NoFeasibleCandidate(
        f"none of {len(known)} strategies keeps the limits",
        expected=f"overhead <= {limits.overhead:.2%}, secure RAM <= {limits.secure_ram:.0f} B, "
        f"switches <= {limits.switches}",
        came=f"nearest: {name} with overhead {near.overhead:.2%}, {near.secure_ram} B, {near.switches} switches",
        fix="raise a limit, or hand over fewer taps",
    )


def _fingerprint(
    victim: Network, base: Strategy, limits: Limits, search: Search, task: Task, emulator: Emulator
) -> str:
    shapes = [(node.operator, victim.values[node.output].shape) for node in victim.nodes]
    plain = {key: value for key, value in base.to_json().items() if key not in ("blocks", "name")}
    return repr((shapes, sorted(plain.items()), limits, search, task.tag, emulator.digest()))


@final
class _Notebook:
    """What the generator knows, kept in JSON files as it learns."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Read what a former run of the same search left; the notes of another search are not used."""
        self.folder, self._fingerprint = folder, fingerprint
        self.scores: dict[str, Score | None] = {}
        self.strategies: dict[str, Strategy] = {}
        self.proxies: dict[str, float] = {}
        for line in self._read("coarse.json"):
            strategy = Strategy.from_json(line["strategy"])
            self.strategies[strategy.name] = strategy
            self.scores[strategy.name] = None if line["score"] is None else Score.from_json(line["score"])
        self.proxies.update({line["name"]: line["accuracy"] for line in self._read("fine.json")})

    def keep_score(self, strategy: Strategy, found: Score | None) -> None:
        """Note the score of a strategy."""
        self.strategies[strategy.name], self.scores[strategy.name] = strategy, found
        lines = [
            {"strategy": self.strategies[name].to_json(), "score": None if s is None else s.to_json()}
            for name, s in self.scores.items()
        ]
        self.write("coarse.json", lines)

    def keep_proxy(self, name: str, accuracy: float) -> None:
        """Note the proxy accuracy of a strategy."""
        self.proxies[name] = accuracy
        self.write("fine.json", [{"name": n, "accuracy": a} for n, a in self.proxies.items()])

    def write(self, name: str, lines: list[Any]) -> None:
        """Write one file, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        text = json.dumps({"search": self._fingerprint, "lines": lines}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, self.folder / name)

    def _read(self, name: str) -> list[Any]:
        path = self.folder / name
        if not path.exists():
            return []
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            return list(plain["lines"]) if plain["search"] == self._fingerprint else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the notes in {name} cannot be read",
                expected="the file a former search wrote",
                came=str(error)[:200],
                fix=f"delete {name}; the search starts again",
            ) from error
