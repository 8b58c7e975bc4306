"""`mirror`: split a trained network in two worlds, and show what each split costs and what can be stolen from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from edgeward.attacks.extraction import Attacker, Exposure, References, audit_split
from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.attacks.extraction.references import black_boxes, measure_references
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.split_executable import split_executable
from edgeward.backends.tee.split_shape import describe
from edgeward.core.candidate import canonical_json
from edgeward.core.errors import ConfigError, NoFeasibleCandidate
from edgeward.core.interval import Estimate as Measured
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.data.records import Records
from edgeward.data.splits import Splits
from edgeward.devices import DeviceProfile, load_profile
from edgeward.graph import Network, capture, fold_batch_norm
from edgeward.measure.fingerprint import environment
from edgeward.protect import reproduce
from edgeward.recipes.mirrornet import Limits, MirrorNet, Search, Strategy, deployment, exposure
from edgeward.recipes.mirrornet import mirror as train_split
from edgeward.report.splits import split_report, write_split_report
from edgeward.split_choice import MirrorResult, SplitMeasurement, Terms
from edgeward.split_export import answered
from edgeward.train.part import Schedule
from edgeward.train.population import Factory, build
from edgeward.train.task import Task

SCHEMA = "edgeward.mirror/1"
CALIBRATION = 256
"""Records that set the int8 ranges of the secure network."""
MOST_BUDGETS = 32
LARGEST_DROP = 0.02
"""A split may be this much less accurate than the network it protects, unless asked otherwise."""


def mirror(
    victim: nn.Module | Factory,
    data: Splits,
    *,
    device: str | DeviceProfile = "rpi3-optee",
    secure_ram: float | None = None,
    overhead: float = 0.01,
    recipe: MirrorNet | None = None,
    strategies: Sequence[Strategy] = (),
    public: nn.Module | None = None,
    budgets: Sequence[int] = (50, 200),
    attackers: int = 3,
    attacker: Attacker | None = None,
    schedule: Schedule | None = None,
    search: Search | None = None,
    largest_drop: float = LARGEST_DROP,
    query_limit: int | None = None,
    calibration: Records | None = None,
    workdir: str | Path = "runs/mirror",
    seed: int = 0,
    command: str | None = None,
    watcher: Watcher | None = None,
) -> MirrorResult:
    """Split `victim`, a trained network, into a normal and a secure world, and steal from every split.

    Arguments: `data` plays all roles: `train` are the private records, `shadow` the attacker's own (their labels are
    asked, never read), `holdout` judges. `secure_ram` in bytes and `overhead` as a fraction of the unprotected latency
    limit the strategy generator on `device`; `strategies` are used instead of searching. `public` is a network of the
    same architecture that never saw private records: the backbone of preset "public", and the attacker's prior.
    `calibration` sets the int8 ranges (default: private records); those of the taps lie open and name the records that
    hold the extremes, so give public ones where that matters. `budgets` are label queries, `attackers` the independent
    attackers per budget. A split may be chosen where its accuracy on validation records is at most `largest_drop` below
    the victim's. `query_limit` is how many inferences a device shall answer; the secure world counts them. `command` is
    what the report prints as repeating the run.
    Returns: `MirrorResult`; `workdir` keeps what is trained, so that a rerun resumes, and holds `report.json`,
    `report.html` and `CARD.md`.
    Guarantee: stealing is measured against the attacks named in the report, relative to the same attacks on the black
    box; cost is modelled, as the emulator's provenance says. Nothing is proved.
    Errors: `NoFeasibleCandidate` with the nearest miss when no strategy keeps the limits.
    """
    asked = _budgets(budgets)
    _check(largest_drop, strategies, query_limit)
    settings, watcher, folder = recipe or MirrorNet(), watcher or Silent(), Path(workdir)
    network = _folded(victim, data, seed)
    outside = None if public is None else _folded(public, data, seed)
    plan = schedule or Schedule(epochs=8, batch=64, rate=2e-3, decay="cosine")
    task = _task(data, plan, seed, watcher, folder, _digest(network) + ("" if outside is None else _digest(outside)))
    emulator = Emulator(_profile(device), secure_ram=secure_ram)
    limits = Limits(secure_ram if secure_ram is not None else float(2**31), overhead)
    if not strategies:
        found = settings.search(
            network,
            task,
            emulator,
            limits,
            workdir=folder / "strategies",
            public=outside,
            search=search,
            watcher=watcher,
        )
        strategies = [each.strategy for each in found]
    stage = _Stage(
        network,
        outside,
        data,
        task,
        emulator,
        asked,
        attackers,
        attacker or Attacker(),
        watcher,
        query_limit,
        calibration or data.train,
    )
    measured = tuple(stage.measure(strategy) for strategy in strategies)
    judged, chosen_by = (stage.accuracy_of(network, records) for records in (data.holdout, data.validation))
    terms = Terms(limits, judged, largest_drop, chosen_by)
    name = str(getattr(device, "name", device))
    report = _report(stage, measured, terms, seed, device=name, command=command or reproduce())
    write_split_report(folder, report)
    return MirrorResult(measured, terms, report, folder)


@final
@dataclass(frozen=True, eq=False)
class _Stage:
    """What every strategy of one run is measured with."""

    network: Network
    public: Network | None
    data: Splits
    task: Task
    emulator: Emulator
    budgets: tuple[int, ...]
    attackers: int
    attacker: Attacker
    watcher: Watcher
    query_limit: int | None
    calibration: Records

    @property
    def prior(self) -> dict[str, torch.Tensor]:
        """The attacker's public weights, by key; empty where there is no public model (fresh weights then)."""
        if self.public is None:
            return {}
        return {key: self.public.tensors[key] for key in learned_keys(self.public)}

    def accuracy_of(self, network: Network, records: Records) -> Measured:
        """Return the float accuracy of a whole network."""
        from edgeward.backends.tee.split_executable import normal_world

        logits = normal_world(network).run(records.x.numpy())
        return _proportion(logits.argmax(1), records)

    def references(self, answers: Any) -> References:
        """Steal the black box and the open network, both answering as one split does."""
        no_shield = Exposure.of("none", self.network, self.prior, direct=self.network)
        pool, holdout = self.data.shadow, self.data.holdout
        return measure_references(
            black_boxes(self.network, self.public),
            no_shield,
            answers,
            pool,
            holdout,
            self.budgets,
            self.attackers,
            attacker=self.attacker,
            watcher=self.watcher,
            choosing=self.data.validation,
        )

    def measure(self, strategy: Strategy) -> SplitMeasurement:
        """Train one strategy, lower it, estimate it and attack it."""
        mirrored = train_split(self.network, strategy, self.task, public=self.public)
        split = replace(deployment(mirrored, self.calibration.x[:CALIBRATION]), query_limit=self.query_limit)
        answers = _answers(split)
        holdout = self.data.holdout
        stolen = audit_split(
            exposure(mirrored, self.prior),
            answers,
            self.data.shadow,
            holdout,
            self.budgets,
            self.attackers,
            references=self.references(answers),
            choosing=self.data.validation,
            members=_some(self.data.train, len(holdout)),
            attacker=self.attacker,
            watcher=self.watcher,
        )
        estimate = self.emulator.estimate(replace(describe(split), victim=self.network))
        authorised, validated = (_proportion(answers(r.x.numpy()), r) for r in (holdout, self.data.validation))
        measured = SplitMeasurement(strategy, split, authorised, estimate, stolen, validated)
        self.watcher.step("splits", 1, 1, f"{strategy.name}: {measured.verdict}")
        return measured


def _budgets(budgets: Sequence[int]) -> tuple[int, ...]:
    asked = tuple(sorted(set(budgets)))
    if not 1 <= len(asked) <= MOST_BUDGETS or min(asked) < 2:
        raise ConfigError(
            "these query budgets cannot be audited",
            expected=f"1 to {MOST_BUDGETS} counts of at least 2 label queries",
            came=", ".join(map(str, asked[:40])) or "none",
            fix="for instance budgets = (50, 500)",
        )
    return asked


def _check(largest_drop: float, strategies: Sequence[Strategy], query_limit: int | None) -> None:
    """Refuse before any training what the report could not hold."""
    names = [strategy.name for strategy in strategies]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems = [f"largest_drop = {largest_drop}"] if not 0 <= largest_drop <= 1 else []
    problems += [f"query_limit = {query_limit}"] if query_limit is not None and query_limit < 1 else []
    problems += [f"two strategies called '{name}'" for name in twice]
    if problems:
        raise ConfigError(
            "the splits cannot be compared",
            expected="a largest drop from 0 to 1, a query limit from 1, and strategies with names of their own",
            came="; ".join(problems),
            fix="write for instance --drop 2%, and rename a strategy with `renamed`",
        )


def _report(
    stage: _Stage, measured: Sequence[SplitMeasurement], terms: Terms, seed: int, *, device: str, command: str
) -> dict[str, Any]:
    chosen, choice = _choice(measured, terms)
    return split_report(
        {
            "schema": SCHEMA,
            "edgeward": metadata.version("edgeward"),
            "command": command,
            "device": device,
            "seed": seed,
            "data": stage.data.name,
            "limits": dict(vars(terms.limits)),
            "victim_accuracy": terms.victim.to_json(),
            "largest_drop": terms.largest_drop,
            "budgets": list(stage.budgets),
            "public_prior": stage.public is not None,
            "splits": [
                {
                    **each.to_json(),
                    "checklist": answered(each).to_json(),
                    "query_limit": each.deployment.query_limit,
                    "assets": each.deployment.assets.to_json(),
                }
                for each in measured
            ],
            "chosen": chosen,
            "choice": choice,
            "environment": environment(),
        }
    )


def _choice(measured: Sequence[SplitMeasurement], terms: Terms) -> tuple[str | None, str]:
    """Return the name of the chosen split and why; None and what binds where there is none."""
    try:
        chosen = terms.choose(measured)
    except NoFeasibleCandidate as error:
        return None, f"{error.what}: {error.came}"
    within = sum(not terms.missed(each) for each in measured)
    return chosen.strategy.name, f"the least stolen of {within} within the limits of device and accuracy"


def _folded(module: nn.Module | Factory, data: Splits, seed: int) -> Network:
    built = module if isinstance(module, nn.Module) else build(module, Seed(seed))
    return fold_batch_norm(capture(built.eval(), data.input_shape))


def _digest(network: Network) -> str:
    digest = hashlib.sha256()
    for key in sorted(network.tensors):
        digest.update(key.encode() + network.tensors[key].numpy().tobytes())
    return digest.hexdigest()


def _profile(device: str | DeviceProfile) -> DeviceProfile:
    return device if isinstance(device, DeviceProfile) else load_profile(device)


def _task(data: Splits, schedule: Schedule, seed: int, watcher: Watcher, folder: Path, networks: str) -> Task:
    if not len(data.shadow):
        raise ConfigError(
            "the stealing attack has no records of its own",
            expected="records in the role 'shadow'",
            came="none",
            fix="give the data set a shadow part, or a smaller training part",
        )
    tag = hashlib.sha256(canonical_json([data.digest, asdict(schedule), seed, networks]).encode()).hexdigest()[:16]
    return Task(
        factory=nn.Identity,
        x=data.train.x,
        y=data.train.y,
        members=torch.ones(1, len(data.train), dtype=torch.bool),
        classes=data.classes,
        seed=Seed(seed).child("mirror"),
        schedule=schedule,
        validation=(data.validation.x, data.validation.y),
        input_shape=data.input_shape,
        watcher=watcher,
        label="mirror",
        directory=folder / "training",
        tag=tag,
    )


def _answers(split: SplitDeployment) -> Any:
    """Return the deployment as a function from records to labels; thieves with full pools ask for none at all."""
    labels = split_executable(split).labels
    return lambda x: labels(x) if len(x) else np.zeros(0, np.int64)


def _some(records: Records, count: int) -> Records:
    return records.subset(range(min(count, len(records))))


def _proportion(labels: np.ndarray, holdout: Records) -> Measured:
    return Measured.proportion(int((labels == holdout.y.numpy()).sum()), len(holdout))
