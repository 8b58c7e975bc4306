"""The one training loop: S models at once, with parts hooked in; S = 1 is the ordinary case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgeward.core.errors import DataError, ModelError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.train import checkpoint as checkpoints
from edgeward.train.compose import compose
from edgeward.train.part import Batch, Context, CrossEntropy, Loss, Part, Schedule, weighted_mean
from edgeward.train.population import Factory, Population
from edgeward.train.rehearsal import rehearse


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal floats as zero while training: they cost 20 to 50 times more and carry nothing."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def epoch_order(
    members: Bool[Tensor, "S n"], seeds: Sequence[Seed], epoch: int, batch: int
) -> tuple[Int[Tensor, "S steps B"], Float[Tensor, "S steps B"]]:
    """Return each model's own shuffled members as equally many, nearly equal batches, and the weights.

    Every model takes ceil(largest count / batch) steps. Short batches are padded with the model's own first members
    (repeated if need be) at weight 0, so that no non-member ever touches batch statistics.
    """
    counts = members.sum(1)
    steps = math.ceil(int(counts.max()) / batch)
    orders = torch.zeros(len(members), int(counts.max()), dtype=torch.int64)
    for row, mask, seed in zip(orders, members, seeds, strict=True):
        own = mask.nonzero().squeeze(1)
        row[: len(own)] = own[torch.randperm(len(own), generator=seed.child("order", epoch).torch())]
    step = torch.arange(steps)
    base, longer = (counts // steps)[:, None], (counts % steps)[:, None]
    start = step * base + torch.minimum(step, longer)
    size = base + (step < longer)
    place = torch.arange(int(size.max()))
    real = place < size[..., None]
    position = torch.where(real, start[..., None] + place, (place - size[..., None]) % counts[:, None, None])
    index = orders.gather(1, position.flatten(1)).view(position.shape)
    return index, real.float()


def batches(context: Context, device: torch.device) -> Iterator[Batch]:
    """Yield one epoch of batches."""
    index, weight = epoch_order(context.members, context.seeds, context.epoch, context.schedule.batch)
    for rows, mass in zip(index.unbind(1), weight.unbind(1), strict=True):
        yield Batch(context.x[rows].to(device), context.y[rows].to(device), rows, mass.to(device))


def as_stored(tensor: Tensor, like: Tensor) -> Tensor:
    """Return `tensor` as a contiguous view in the memory order of `like`; copied only if its own order differs."""
    return tensor.contiguous() if like.is_contiguous() else tensor.mT.contiguous()


def make_optimizer(population: Population, schedule: Schedule) -> torch.optim.Optimizer:
    """Return a torch optimiser over the stacked parameters; element-wise, so that models stay independent.

    It holds contiguous views, since fused optimisers walk memory and not indices.
    """
    for name, p in population.params.items():
        if not p.is_contiguous() and not p.mT.is_contiguous():
            population.params[name] = p.contiguous()
    params = [as_stored(p.requires_grad_().detach(), p) for p in population.params.values()]
    if schedule.optimizer == "adam":
        return torch.optim.Adam(params, lr=schedule.rate, weight_decay=schedule.weight_decay, fused=True)
    momentum, decay = schedule.momentum, schedule.weight_decay
    return torch.optim.SGD(params, lr=schedule.rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0)


def rate_at(schedule: Schedule, epoch: int) -> float:
    """Return the learning rate of an epoch."""
    if schedule.decay == "constant":
        return schedule.rate
    return schedule.rate * 0.5 * (1 + math.cos(math.pi * epoch / schedule.epochs))


def _check(context: Context) -> None:
    problems = []
    if len(context.x) != len(context.y) or context.members.shape[1] != len(context.x):
        problems.append(
            f"{len(context.x)} records, {len(context.y)} labels, membership of {context.members.shape[1]} records"
        )
    if len(context.seeds) != len(context.members):
        problems.append(f"{len(context.seeds)} seeds for {len(context.members)} models")
    if len(context.y) and (int(context.y.min()) < 0 or int(context.y.max()) >= context.classes):
        problems.append(f"labels from {int(context.y.min())} to {int(context.y.max())} for {context.classes} classes")
    if (context.members.sum(1) == 0).any():
        problems.append("a model has no member to train on")
    if problems:
        raise DataError("training cannot start:\n  " + "\n  ".join(problems), fix="check the splits and the classes")


def _not_finite(population: Population) -> frozenset[str]:
    """Return the names of tensors with NaN or infinity; raise `ModelError` where a parameter starts with one."""
    bad = frozenset(n for n, t in {**population.params, **population.buffers}.items() if not _finite(t))
    if broken := sorted(bad & population.params.keys()):
        raise ModelError(
            f"{len(broken)} parameters hold NaN or infinity before training",
            expected="finite initial weights",
            came=", ".join(broken[:8]),
            fix="check how the factory initialises them",
        )
    return bad


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _check_weights(population: Population, context: Context, meant: frozenset[str]) -> None:
    """Refuse what training broke; `meant` (a mask of minus infinities) was not finite before."""
    tensors = {**population.params, **population.buffers}
    bad = [name for name, t in tensors.items() if name not in meant and not _finite(t)]
    if bad:
        raise ModelError(
            f"{len(bad)} tensors hold NaN or infinity after training",
            expected="finite weights",
            came=", ".join(bad[:8]),
            fix=f"lower the learning rate (now {context.schedule.rate}) or check the records for NaN",
        )


def _first_records(context: Context) -> tuple[Float[Tensor, "s b ..."], int]:
    """Return the first records of two models at most, and the class count that their answers must have."""
    steps = math.ceil(int(context.members.sum(1).max()) / context.schedule.batch)
    width = min(2, math.ceil(int(context.members.sum(1).max()) / steps))
    own = [mask.nonzero().squeeze(1) for mask in context.members[:2]]
    rows = [(rows if len(rows) >= width else rows[:1].repeat(width))[:width] for rows in own]
    return context.x[torch.stack(rows)], context.classes


@contextmanager
def seeded(context: Context, *labels: str | int) -> Iterator[None]:
    """Seed torch's global generator (dropout, augmentations) for one purpose and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(context.seeds[0].child(*labels).value)
        yield


def _set_gradients(population: Population, opt: torch.optim.Optimizer, loss: Tensor) -> None:
    """Hand the gradients of `loss` to the optimiser's views; `backward` would copy each of them once more."""
    held = list(population.params.values())
    for view, leaf, gradient in zip(
        opt.param_groups[0]["params"], held, torch.autograd.grad(loss, held, allow_unused=True), strict=True
    ):
        view.grad = None if gradient is None else as_stored(gradient, leaf)


def _epoch(
    context: Context, population: Population, losses: Sequence[Loss], parts: Sequence[Part], opt: torch.optim.Optimizer
) -> float:
    device = population.device
    total = 0.0
    for drawn in batches(context, device):
        batch = reduce(lambda b, part: part.augment(context, b), parts, drawn)
        logits = population.forward(batch.x, training=True, per_model=True)
        loss = sum((weighted_mean(f(logits, batch, context), batch.weight) for f in losses), start=torch.zeros(()))
        _set_gradients(population, opt, loss.sum())
        opt.step()
        for part in parts:
            part.on_step(context, population)
        total = float(loss.detach().mean())
    return total


def fit(
    population: Population,
    context: Context,
    parts: Sequence[Part],
    *,
    checkpoint: Path | None = None,
    tag: str = "",
    every: int = 20,
) -> Population:
    """Train a population in place with the hooks of `parts` and return it.

    Arguments: `checkpoint` names a file written every `every` epochs, and before the first one when a part's
    preparation is worth keeping (teachers' labels), and resumed from when its `tag` fits.
    Cost: epochs x batches x one batched forward and backward of S models.
    Errors: `CompositionError`, `DataError`; `ModelError` before the first epoch for a network that a population cannot
    carry, and when the loss stops being finite.
    """
    _check(context)
    losses = compose(parts, population.template)
    meant = _not_finite(population)
    if all(part.needs.feeds_records for part in parts):
        rehearse(population, *_first_records(context))
    owner = next((part for part in parts if part.needs.owns_optimizer), None)
    optimizer = make_optimizer(population, context.schedule)
    if checkpoint is not None and owner is None:
        checkpoints.restore(checkpoint, population, optimizer, context, tag)
    for part in parts:
        part.prepare(context, population)
    with flushed_denormals():
        if owner is not None:
            with seeded(context, "owner"):
                owner.train(context, population, losses, parts)
        else:
            save = None if checkpoint is None else partial(checkpoints.save, checkpoint, tag=tag)
            _run(population, context, losses, parts, optimizer, save, every)
    for part in parts:
        part.finish(context, population)
    _check_weights(population, context, meant)
    for tensor in population.params.values():
        tensor.requires_grad_(False)
    return population


def _run(
    population: Population,
    context: Context,
    losses: Sequence[Loss],
    parts: Sequence[Part],
    optimizer: torch.optim.Optimizer,
    save: Callable[[Population, torch.optim.Optimizer, Context], None] | None,
    every: int,
) -> None:
    if save is not None and context.epoch == 0 and context.memory:
        save(population, optimizer, context)
    while context.epoch < context.schedule.epochs and not context.stop:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(context.schedule, context.epoch)
        # seeded per epoch so that a resumed run draws the same
        with seeded(context, "dropout", context.epoch):
            loss = _epoch(context, population, losses, parts, optimizer)
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss is not finite after epoch {context.epoch + 1}",
                came=str(loss),
                fix=f"lower the learning rate (now {context.schedule.rate}) or check the records' scale",
            )
        context.epoch += 1
        for part in parts:
            part.on_epoch(context, population)
        context.watcher.step(context.label, context.epoch, context.schedule.epochs, f"loss {loss:.3f}")
        if save is not None and context.epoch % every == 0:
            save(population, optimizer, context)


def train_many(
    factory: Factory,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, " n"],
    members: Bool[Tensor, "S n"],
    *,
    classes: int,
    seed: Seed,
    schedule: Schedule | None = None,
    parts: Sequence[Part] = (CrossEntropy(),),
    watcher: Watcher | None = None,
    device: str = "cpu",
) -> Population:
    """Train many small models at once as one batched computation: model s on the records where `members[s]`.

    Shapes: `x` [n, ...], `y` [n] class indices, `members` [S, n] bool.
    Returns: the trained population; member s equals, up to float rounding, the model trained alone with seed
    `seed.child("model", s)` when both take equally many steps per epoch (BatchNorm also sees the padding).
    """
    seeds = tuple(seed.child("model", s) for s in range(len(members)))
    for part in parts:
        factory = part.wrap_factory(factory)
    population = Population.initialise(factory, seeds, device)
    context = Context(factory, x, y, members, classes, seeds, schedule or Schedule(), watcher=watcher or Silent())
    return fit(population, context, parts)
