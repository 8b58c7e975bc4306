"""`Part`: the hooks a defence or transform may implement in the one training loop."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.train.population import Factory, Population


@final
@dataclass(frozen=True)
class Batch:
    """One step's records for every model: each model draws its own members in its own order.

    Shapes: x [S, B, ...], y [S, B], index [S, B] into the training records, weight [S, B] (0 marks padding), target
    [S, B, C] soft labels where a part set them.
    """

    x: Float[Tensor, "S B ..."]
    y: Int[Tensor, "S B"]
    index: Int[Tensor, "S B"]
    weight: Float[Tensor, "S B"]
    target: Float[Tensor, "S B C"] | None = None


@final
@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; settings apply to every model of a population alike.

    `decay` is "constant" or "cosine" (to zero). `optimizer` is "adam" or "sgd" (momentum 0.9 by default).
    """

    epochs: int = 60
    batch: int = 100
    rate: float = 2e-3
    optimizer: str = "adam"
    decay: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot train, all at once."""
        rules = {
            "epochs, at least 1": self.epochs >= 1,
            "batch, at least 1": self.batch >= 1,
            "rate, above 0": self.rate > 0,
            "momentum, from 0 to below 1": 0 <= self.momentum < 1,
            "weight_decay, at least 0": self.weight_decay >= 0,
            "optimizer, adam or sgd": self.optimizer in ("adam", "sgd"),
            "decay, constant or cosine": self.decay in ("constant", "cosine"),
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError("the schedule cannot train", expected="; ".join(broken), came=repr(self))


@final
@dataclass
class Context:
    """What the loop shows its parts: the records, who is a member of which model, and where the loop stands.

    `x` [n, ...], `y` [n], `members` [S, n] bool, `seeds` one per model: a model's initial weights and data order depend
    on its own seed alone, not on its siblings. `validation` is never trained on and never attacked. `memory` is a
    part's own state, saved with each checkpoint. A part may set `stop`.
    """

    factory: Factory
    x: Float[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    members: Bool[Tensor, "S n"]
    classes: int
    seeds: tuple[Seed, ...]
    schedule: Schedule
    validation: tuple[Float[Tensor, "v ..."], Int[Tensor, " v"]] | None = None
    watcher: Watcher = field(default_factory=Silent)
    label: str = "train"
    epoch: int = 0
    stop: bool = False
    memory: dict[str, Tensor] = field(default_factory=dict)


Loss = Callable[[Float[Tensor, "S B C"], Batch, Context], Float[Tensor, "S B"]]


@final
@dataclass(frozen=True)
class Needs:
    """What a part demands of the loop; `compose` refuses lists of parts whose demands collide."""

    owns_optimizer: bool = False
    owns_order: bool = False
    per_sample_loss: bool = True
    forbids_batch_norm: bool = False
    differentially_private: bool = False
    touches_records_outside_loss: bool = False
    feeds_records: bool = True
    """Whether the network is given records of the context as they are shaped there, and answers [n, classes]."""


class Part(ABC):
    """A defence or transform as hooks of one training loop; subclasses are final frozen dataclasses.

    Every hook has a neutral default. Tensors carry the model axis S first.
    """

    slug: ClassVar[str]
    needs: ClassVar[Needs] = Needs()

    def wrap_factory(self, factory: Factory) -> Factory:
        """Change the network's structure before training (binary layers, k-bit layers)."""
        return factory

    def prepare(self, context: Context, population: Population) -> None:  # noqa: B027
        """Do what must happen once before the first step (train teachers, compute masks)."""

    def augment(self, context: Context, batch: Batch) -> Batch:
        """Change a training batch; draws come from torch's global generator, which the loop seeds per epoch."""
        return batch

    def loss(self) -> Loss | None:
        """Return a per-sample loss [S, B] to add, or None; a list of parts must give at least one."""
        return None

    def train(self, context: Context, population: Population, losses: Sequence[Loss], parts: Sequence[Part]) -> None:
        """Run the epochs instead of the default loop; only for the part that declares `owns_optimizer`."""
        raise NotImplementedError(f"{self.slug} owns the optimiser but does not train")

    def on_step(self, context: Context, population: Population) -> None:  # noqa: B027
        """Act after each optimiser step (project onto a mask, drop and grow)."""

    def on_epoch(self, context: Context, population: Population) -> None:  # noqa: B027
        """Act after each epoch (schedules, early stopping counters)."""

    def finish(self, context: Context, population: Population) -> None:  # noqa: B027
        """Act once after the last epoch (restore the best weights)."""

    def wrap_inference(self, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Change the answers at inference; strip-able by whoever holds the weights, so reported with a bare row."""
        return run

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """Return what this part guarantees, to whom, and on what basis."""
        return ()

    def settings(self) -> Mapping[str, object]:
        """Return the part's settings for the candidate's hash."""
        return dict(vars(self))


@final
@dataclass(frozen=True)
class CrossEntropy(Part):
    """The task loss: cross-entropy with the record's label."""

    slug: ClassVar[str] = "cross_entropy"

    def loss(self) -> Loss:
        """Return -log softmax(logits)[y] per sample."""

        def value(logits: Tensor, batch: Batch, context: Context) -> Tensor:
            # classes before records: a softmax over ten adjacent floats is not vectorised, one over ten long rows is
            log = torch.log_softmax(logits.mT.contiguous(), 1)
            return -log.gather(1, batch.y[:, None]).squeeze(1)

        return value


def weighted_mean(values: Float[Tensor, "S B"], weight: Float[Tensor, "S B"]) -> Float[Tensor, " S"]:
    """Return each model's mean over its real (weight 1) samples."""
    return (values * weight).sum(1) / torch.clamp(weight.sum(1), min=1.0)
