"""`mirror`: train backbone and monitor of a strategy for one victim."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edgeward.attacks.extraction.training import Jitter
from edgeward.core.candidate import canonical_json
from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError, ModelError
from edgeward.graph.module import Rebuilt, tensors_of, to_module
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, subnetwork
from edgeward.recipes.mirrornet.following import Followed, Following, watched_blocks
from edgeward.recipes.mirrornet.spoiling import spoiled_head
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.part import Part, Schedule
from edgeward.train.population import Population, build
from edgeward.train.task import Task
from edgeward.transforms.mirror.adapted import Adapted
from edgeward.transforms.mirror.features import OnFeatures, features, tap_ranges
from edgeward.transforms.mirror.mirrored import MirrorModule
from edgeward.transforms.mirror.monitor import Monitor, classes_of, monitor_network, tap_shapes
from edgeward.transforms.mirror.objective import MirrorObjective
from edgeward.transforms.mirror.plan import COPIES
from edgeward.transforms.mirror.tapped import tapped

CALIBRATION = 256
"""Records that set the range of each tap."""
ADAPTING = 500
"""Records that adapters start from."""
WARMING = 5000
"""Records on which a fresh monitor learns to read the victim before both are trained."""


@final
@dataclass(frozen=True, eq=False)
class Mirrored:
    """A victim split by a strategy, in float: what each world runs.

    `normal` gives the taps, and its own logits last where it has an answer (`direct`, else None); `monitor` takes the
    taps and gives the authorised logits. `visible` is the whole backbone as far as the normal world holds it, with the
    cuts that are handed over (`watched`): what an attacker starts from.
    """

    strategy: Strategy
    normal: Network
    monitor: Network
    direct: Network | None
    backbone: Network
    watched: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    trainings: int = 1

    @torch.no_grad()
    def taps(self, x: Float[Tensor, "n ..."], chunk: int = 500) -> list[Tensor]:
        """Return every tap of the records, as float."""
        module, count = to_module(self.normal), len(self.monitor.inputs)
        pieces = [_tuple(module(part))[:count] for part in torch.split(x, chunk)]
        return [torch.cat(tap) for tap in zip(*pieces, strict=True)]

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "n ..."], chunk: int = 500) -> Float[Tensor, "n C"]:
        """Return the authorised logits in float."""
        normal, monitor, count = to_module(self.normal), to_module(self.monitor), len(self.monitor.inputs)
        return torch.cat([monitor(*_tuple(normal(part))[:count]) for part in torch.split(x, chunk)])

    def accuracy(self, x: Float[Tensor, "n ..."], y: Int[Tensor, " n"]) -> float:
        """Return the authorised accuracy in float."""
        return float((self.logits(x).argmax(1) == y).float().mean())

    def direct_accuracy(self, x: Float[Tensor, "n ..."], y: Int[Tensor, " n"]) -> float | None:
        """Return the accuracy of the normal world alone, None where it has no answer."""
        return None if self.direct is None else float((answers(self.direct, x).argmax(1) == y).float().mean())


def mirror(victim: Network, strategy: Strategy, task: Task, *, public: Network | None = None) -> Mirrored:
    """Train the two halves of `victim` that `strategy` describes, on the private records of `task`.

    `victim` is a trained network with batch normalisation folded in, one input and logits as its last output. `public`
    is the backbone of preset "public": a network divided into stages of the same shapes that never saw the records;
    with taps of the input alone it is not needed. `task` holds the records (one model), the schedule, the seed and,
    for a resumable run, a directory; its factory is not used.

    Guarantee: preset "public" gives the normal world no weight that depends on the private records (by construction,
    where `public` is what it is said to be); the taps' int8 ranges, in clear too, are calibrated on some of them.
    What can be stolen is measured by the audit, for every preset.
    Cost: one pass of victim (and backbone) over all records and their mirror images, then one training of backbone and
    monitor, or of the monitor alone on stored features (2 bytes per tap element, record and view); with `shift` a pass
    of both in every epoch.
    Raises: `ModelError`, `ConfigError` naming what does not fit.
    """
    if len(task.members) != 1:
        raise ConfigError("one victim is mirrored at a time", expected="members [1, n]", came=str(len(task.members)))
    at, classes = strategy.divided(victim), classes_of(victim)
    problems = strategy.plan.fits(at)
    if problems:
        raise ModelError(
            f"the strategy '{strategy.name}' does not fit this network:\n    " + "\n    ".join(problems),
            expected=f"{strategy.division} 0 to {len(at) - 1}: {', '.join(str(cut.shape) for cut in at)}",
        )
    # strategies of one name may differ (gap, flips, ...): a finished training belongs to one of them alone
    task = replace(task, tag=_tag([task.tag, strategy.to_json()]))
    with torch.no_grad():
        drawn = build(lambda: Monitor(strategy.plan, victim, at, classes), task.seed.child("monitor"))
    monitor = cast(Monitor, drawn)
    if strategy.preset != "public":
        return _joint(victim, at, strategy, task, monitor)
    if strategy.plan.copies_all_after == 0:
        return _finish(strategy, victim, at, monitor, trainings=0)
    return _watching(_fitting(public, at, strategy), victim, at, strategy, task, monitor)


def _tag(parts: list[object]) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def _fitting(public: Network | None, at: Sequence[Cut], strategy: Strategy) -> Network:
    if public is None:
        raise ConfigError(
            "preset 'public' needs a public backbone",
            expected="a network of the victim's stages that never saw the private records",
            came="none",
            fix="pass public=..., or watch the input alone, or choose preset 'faithful'",
        )
    shapes = [cut.shape for cut in strategy.divided(public)]
    if shapes != [cut.shape for cut in at]:
        raise ModelError(
            "the public backbone is divided otherwise than the victim",
            expected=", ".join(str(cut.shape) for cut in at),
            came=", ".join(map(str, shapes)),
            fix="use a backbone of the victim's architecture",
        )
    return public


def _watching(
    public: Network, victim: Network, at: Sequence[Cut], strategy: Strategy, task: Task, monitor: Monitor
) -> Mirrored:
    """Train the monitor alone, on features of the frozen backbone; copies of trained layers at the tuning rate."""
    copied = any(block.kind in COPIES for block in strategy.blocks)
    schedule = tuned(task.schedule, strategy) if copied else task.schedule
    claims = _watch(public, victim, at, strategy, task, monitor, f"mirror-{strategy.name}", schedule)
    return _finish(strategy, public, strategy.divided(public), monitor, claims)


def _watch(
    backbone: Network,
    victim: Network,
    at: Sequence[Cut],
    strategy: Strategy,
    task: Task,
    monitor: Monitor,
    stage: str,
    schedule: Schedule,
) -> tuple[Claim, ...]:
    """Train `monitor` in place on stored features of `backbone`, which are made only where no former run finished."""
    cuts = strategy.divided(backbone)
    front = tapped(backbone, cuts, strategy.plan, answer=False)
    # validation records are images, not features; nothing here looks at them
    context = replace(task, validation=None).context(task.factory, stage, schedule)
    shapes = tap_shapes(strategy.plan, cuts, classes_of(victim))
    finished = task.directory is not None and (task.directory / f"{stage}.{task.tag}.safetensors").exists()
    if not finished:
        fit_adapters(monitor, front, victim, at, task)
    if strategy.shift:
        watched = watched_blocks(monitor, at)
        module: nn.Module = Followed(monitor, shapes, watched)
        part: Part = _following(front, victim, at, strategy, task, watched)
    else:
        module, views = OnFeatures(monitor, shapes), _views(victim, strategy)
        teacher = torch.zeros(1, views, 0, classes_of(victim))
        if not finished:
            teacher = teacher_logits(victim, task.x, views)
            context.x = features(front, task.x, tap_ranges(front, task.x[:CALIBRATION]), views=views)
        part = MirrorObjective("public", teacher, temperature=strategy.temperature, cached=True)
    population = Population.stack([module], task.device)
    _, claims = task.stage(stage, population, context, [part])
    trained = {key.removeprefix("monitor."): tensor.cpu() for key, tensor in population.state(0).items()}
    monitor.load_state_dict(trained)
    return claims


def _following(
    front: Network, victim: Network, at: Sequence[Cut], strategy: Strategy, task: Task, watched: Sequence[int]
) -> Following:
    ends = [at[strategy.plan.blocks[number].stage] for number in watched]
    teacher = subnetwork(victim, victim.inputs, (*(end.value for end in ends), victim.outputs[-1]))
    return Following(
        to_module(front).to(task.device).eval(),
        to_module(teacher).to(task.device).eval(),
        tap_ranges(front, task.x[:CALIBRATION]),
        tuple(victim.values[end.value].elements for end in ends),
        Jitter(strategy.flips, strategy.shift),
        strategy.follow,
        strategy.temperature,
    )


def tuned(schedule: Schedule, strategy: Strategy) -> Schedule:
    """Return the schedule for weights that are trained already."""
    return replace(schedule, rate=schedule.rate * strategy.tuning)


@torch.no_grad()
def fit_adapters(monitor: Monitor, front: Network, victim: Network, at: Sequence[Cut], task: Task) -> None:
    """Start adapters from the regression of the victim's values on the backbone's."""
    taps = [block for number, block in enumerate(monitor.plan.blocks) if monitor.plan.tap(number) is not None]
    for place, block in enumerate(taps):
        module = monitor.blocks[monitor.plan.blocks.index(block)]
        if isinstance(module, Adapted):
            records = task.x[:ADAPTING]
            own = to_module(subnetwork(victim, victim.inputs, (at[block.stage - 1].value,)))
            given = torch.cat([_tuple(to_module(front)(part))[place] for part in torch.split(records, 100)])
            wanted = torch.cat([_tuple(own(part))[0] for part in torch.split(records, 100)])
            module.fit(given, wanted)


def _joint(victim: Network, at: Sequence[Cut], strategy: Strategy, task: Task, monitor: Monitor) -> Mirrored:
    """Train backbone and monitor together at the tuning rate, after the monitor has learned to read the victim."""
    stage = f"mirror-{strategy.name}"
    if strategy.spoils == "head":
        _watch(victim, victim, at, strategy, task, monitor, f"{stage}-monitor", task.schedule)
        spoiled, claims = spoiled_head(victim, at, strategy, task, f"{stage}-head")
        return _finish(strategy, spoiled, at, monitor, claims, 2)
    few = min(len(task.x), WARMING)
    warming = replace(task, x=task.x[:few], y=task.y[:few], members=task.members[:, :few])
    if bool(warming.members.any()):
        _watch(victim, victim, at, strategy, warming, monitor, f"{stage}-warm", task.schedule)
    front = tapped(victim, at, strategy.plan)
    module = MirrorModule(to_module(front), monitor)
    teacher = teacher_logits(victim, task.x, _views(victim, strategy))
    population = Population.stack([module], task.device)
    objective = MirrorObjective(strategy.preset, teacher, strategy.gap, strategy.weight, strategy.temperature)
    context = task.context(task.factory, stage, tuned(task.schedule, strategy))
    _, claims = task.stage(stage, population, context, [objective])
    module.load_state_dict({key: tensor.cpu() for key, tensor in population.state(0).items()})
    return _finish(strategy, _trained_as(victim, module.backbone), at, monitor, claims)


def _trained_as(network: Network, module: nn.Module) -> Network:
    """Return `network` with the tensors that a rebuilt module of it holds by now."""
    found = tensors_of(cast(Rebuilt, module))
    return replace(network, tensors={key: found.get(key, tensor) for key, tensor in network.tensors.items()})


def _finish(
    strategy: Strategy,
    backbone: Network,
    at: Sequence[Cut],
    monitor: Monitor,
    claims: tuple[Claim, ...] = (),
    trainings: int = 1,
) -> Mirrored:
    answer = strategy.preset != "public"
    normal = tapped(backbone, at, strategy.plan, answer=answer)
    return Mirrored(
        strategy,
        normal,
        monitor_network(monitor.eval(), at),
        subnetwork(normal, normal.inputs, normal.outputs[-1:]) if answer else None,
        backbone,
        tuple(at[tap.cut].value for tap in strategy.plan.taps),
        claims,
        trainings,
    )


def _views(victim: Network, strategy: Strategy) -> int:
    return 2 if strategy.flips and len(victim.input_shape()) == 3 else 1


def teacher_logits(victim: Network, x: Float[Tensor, "n ..."], views: int) -> Float[Tensor, "1 K n C"]:
    """Return the victim's logits on the records and, for two views, on their mirror images."""
    return torch.stack([answers(victim, x.flip(-1) if view else x) for view in range(views)])[None]


@torch.no_grad()
def answers(network: Network, x: Float[Tensor, "n ..."], chunk: int = 500) -> Float[Tensor, "n C"]:
    """Return the last output of `network` for every record."""
    module = to_module(network)
    return torch.cat([_tuple(module(part))[-1] for part in torch.split(x, chunk)])


def _tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
