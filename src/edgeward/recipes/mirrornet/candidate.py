"""A trained population split in two worlds, sibling by sibling, so that a split can be one candidate among others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from edgeward.attacks.extraction import Attacker, Exposure, StealingReport, audit_split
from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.attacks.extraction.references import black_boxes, measure_references
from edgeward.backends.backend import BACKENDS
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.split_executable import split_executable
from edgeward.backends.tee.split_shape import describe
from edgeward.data.splits import Splits
from edgeward.graph import Network, capture, fold_batch_norm
from edgeward.measure.siblings import Siblings
from edgeward.measure.two_worlds import TwoWorlds
from edgeward.recipes.mirrornet.mirroring import Mirrored, mirror
from edgeward.recipes.mirrornet.splitting import deployment, exposure
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.task import Task, Trained

CALIBRATION = 256
"""Records of a sibling's own that set its int8 ranges."""


@final
@dataclass(frozen=True)
class Stealing:
    """The stealing audit that was asked for: label queries, and independent attackers of so many training steps."""

    budgets: tuple[int, ...]
    attackers: int
    steps: int

    @property
    def attacker(self) -> Attacker:
        """Return the thief."""
        return Attacker(steps=self.steps, epochs=min(self.steps, Attacker().epochs))


def split_siblings(
    trained: Trained,
    task: Task,
    strategy: Callable[[Network], Strategy],
    public: Network | None,
    splits: Splits,
    emulator: Emulator,
    *,
    stealing: Stealing | None,
    query_limit: int | None,
) -> Siblings:
    """Split every model of `trained` by one strategy, each with its own records; the last one ships.

    A sibling's halves are trained and calibrated on the records that it may have seen and on no other, so that the
    audit of the answers is one of the whole recipe. The answers are the int8 ones through both worlds, as the policy
    lets them out. Cost: one training of the halves per sibling, one after the other.
    """
    halves: list[tuple[Network, Mirrored, SplitDeployment]] = []
    total = len(trained.population)
    for number in range(total):
        network = fold_batch_norm(capture(trained.population.member(number, trained.factory), splits.input_shape))
        own = _of_one(task, number)
        mirrored = mirror(network, strategy(network), own, public=public)
        split = replace(deployment(mirrored, own.x[:CALIBRATION]), query_limit=query_limit)
        halves.append((network, mirrored, split))
        task.watcher.step(f"{task.label}: two worlds", number + 1, total)
    victim, mirrored, shipped = halves[-1]
    onnx = BACKENDS["onnx"]
    worlds = TwoWorlds(
        shipped,
        emulator.estimate(replace(describe(shipped), victim=victim)),
        None if stealing is None else _stolen(victim, mirrored, shipped, public, splits, stealing, task),
        {"strategy": mirrored.strategy.to_json(), "describe": mirrored.strategy.describe()},
        mirrored.trainings,
        mirrored.claims,
    )
    answering = tuple(split_executable(split) for _, _, split in halves)
    return Siblings(shipped.normal, onnx, onnx.lower(shipped.normal), answering[-1], answering[:-1], worlds)


def _of_one(task: Task, number: int) -> Task:
    """Return the task of one sibling: its own records, alone."""
    own = task.members[number]
    return replace(
        task,
        x=task.x[own],
        y=task.y[own],
        members=torch.ones(1, int(own.sum()), dtype=torch.bool),
        seed=task.seeds[number].child("mirror"),
        label=f"{task.label}: sibling {number + 1}",
        directory=None if task.directory is None else task.directory / f"sibling-{number}",
    )


def _stolen(
    victim: Network,
    mirrored: Mirrored,
    split: SplitDeployment,
    public: Network | None,
    splits: Splits,
    asked: Stealing,
    task: Task,
) -> StealingReport:
    """Steal the shipped split; both ends of the scale answer as it does."""
    prior = {} if public is None else {key: public.tensors[key] for key in learned_keys(public)}
    labels = _labels(split)
    open_ = Exposure.of("none", victim, prior, direct=victim)
    rest: Sequence[Any] = (labels, splits.shadow, splits.holdout, asked.budgets, asked.attackers)
    common: Mapping[str, Any] = {
        "attacker": asked.attacker,
        "watcher": task.watcher,
        "choosing": splits.validation,
    }
    references = measure_references(black_boxes(victim, public), open_, *rest, **common)
    members = splits.train.subset(range(min(len(splits.train), len(splits.holdout))))
    return audit_split(exposure(mirrored, prior), *rest, references=references, members=members, **common)


def _labels(split: SplitDeployment) -> Callable[[np.ndarray], Int[np.ndarray, " n"]]:
    executable = split_executable(split)
    return lambda x: executable.labels(x) if len(x) else np.zeros(0, np.int64)


def public_network(state: Mapping[str, Tensor], task: Task) -> Network:
    """Return the task's network with the weights of `state`, which never saw the private records.

    Raises: `ConfigError` where they do not fit.
    """
    from edgeward.core.errors import ConfigError
    from edgeward.train.population import build

    module = build(task.factory, task.seed)
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        came = str(error).splitlines()[-1].strip()[:200]
        expected = "weights of the very network that is protected"
        raise ConfigError("the public weights do not fit", expected=expected, came=came) from None
    return fold_batch_norm(capture(module.eval(), task.input_shape))
