"""Early stopping: keep each model's weights of the epoch with the lowest validation loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from edgeward.core.errors import CompositionError, ConfigError
from edgeward.train.part import Context, Part
from edgeward.train.population import Population


@final
@dataclass(frozen=True)
class EarlyStopping(Part):
    """Stop a model after `patience` epochs without a lower validation loss and restore its best weights.

    The validation split is never trained on and never attacked. Every model of a population stops on its own.
    Guarantee: none; less memorisation is measured by the audit.
    """

    slug: ClassVar[str] = "early_stopping"

    patience: int = 5

    def __post_init__(self) -> None:
        """Refuse a patience that never waits."""
        if self.patience < 1:
            raise ConfigError(
                "early stopping needs patience", expected="at least 1 epoch", came=str(self.patience), fix="give 5"
            )

    def prepare(self, context: Context, population: Population) -> None:
        """Require validation records."""
        if context.validation is None or not len(context.validation[0]):
            raise CompositionError(
                "early stopping needs validation records",
                expected="a non-empty validation split",
                came="none",
                fix="give validation= or let edgeward carve it from train",
            )

    def on_epoch(self, context: Context, population: Population) -> None:
        """Compare each model's validation loss with its best and remember improvements."""
        if context.validation is None:
            return
        x, y = context.validation
        likelihood = population.logits(x).cpu().log_softmax(-1)
        loss = -likelihood.gather(-1, y.expand(len(population), -1)[..., None]).squeeze(-1).mean(1)
        memory = context.memory
        best = memory.get("early.loss", torch.full_like(loss, torch.inf))
        stale = memory.get("early.stale", torch.zeros(len(loss)))
        running = stale < self.patience
        better = (loss < best) & running
        memory["early.loss"] = torch.where(better, loss, best)
        memory["early.stale"] = torch.where(better, 0.0, torch.where(running, stale + 1, stale))
        for name, tensor in _state(population).items():
            kept = memory.get(f"early.best.{name}", tensor.detach().clone())
            kept[better] = tensor.detach()[better]
            memory[f"early.best.{name}"] = kept
        context.stop = bool((memory["early.stale"] >= self.patience).all())

    def finish(self, context: Context, population: Population) -> None:
        """Restore each model's best weights."""
        with torch.no_grad():
            for name, tensor in _state(population).items():
                tensor.copy_(context.memory[f"early.best.{name}"])


def _state(population: Population) -> dict[str, Tensor]:
    return {**population.params, **population.buffers}
