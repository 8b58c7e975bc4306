"""Training of surrogates: one population of all seeds in the one training loop, some tensors frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.train.fit import fit
from edgeward.train.part import Batch, Context, CrossEntropy, Part, Schedule
from edgeward.train.population import Population


@final
@dataclass(frozen=True)
class Jitter(Part):
    """Random horizontal flips and shifts by up to `shift` pixels (zeros come in) of images [S, B, C, H, W]."""

    slug: ClassVar[str] = "jitter"

    flips: bool = True
    shift: int = 0

    def augment(self, context: Context, batch: Batch) -> Batch:
        """Change each image on its own."""
        x = batch.x
        if x.dim() != 5:
            return batch
        if self.flips:
            mirrored = torch.rand(x.shape[:2], device="cpu").to(x.device)[..., None, None, None] < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        if self.shift:
            x = self._shifted(x)
        return Batch(x, batch.y, batch.index, batch.weight, batch.target)

    def _shifted(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (self.shift,) * 4)
        moves = torch.randint(0, 2 * self.shift + 1, (*x.shape[:2], 2)).to(x.device)
        rows = (moves[..., :1] + torch.arange(height, device=x.device))[:, :, None, :, None]
        columns = (moves[..., 1:] + torch.arange(width, device=x.device))[:, :, None, None, :]
        models = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1, 1)
        places = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1, 1)
        channels = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1, 1)
        found: Tensor = padded[models, places, channels, rows, columns]
        return found


@final
@dataclass(frozen=True)
class Pinned(Part):
    """Keeps the entries of parameters that are known: `known` marks them, by parameter name and without the model axis.

    They are put back after every step, to what they were before the first.
    """

    slug: ClassVar[str] = "pinned"

    known: Mapping[str, Tensor]

    def prepare(self, context: Context, population: Population) -> None:
        """Remember the values."""
        context.memory |= {f"pinned.{name}": population.params[name].detach().clone() for name in self.known}

    @torch.no_grad()
    def on_step(self, context: Context, population: Population) -> None:
        """Put the known entries back."""
        for name, mask in self.known.items():
            own = population.params[name]
            own.copy_(torch.where(mask.to(own.device), context.memory[f"pinned.{name}"], own))


def trained(
    models: Sequence[nn.Module],
    frozen: frozenset[str],
    x: Float[Tensor, "n ..."],
    y: Int64[Tensor, " n"],
    members: Bool[Tensor, "S n"],
    seeds: Sequence[Seed],
    schedule: Schedule,
    parts: Sequence[Part],
    classes: int,
    device: str,
) -> Population | None:
    """Train model s on the records where `members[s]`, leaving the parameters `frozen` as they are.

    Returns None where training diverges (a rate too high for a network without normalisation).

    Cost: on one core a population takes about as long per model as one model alone (vmap of convolutions becomes a
    grouped convolution); it is much faster for small networks and on accelerators.
    """
    population = Population.stack(models, device)
    for name in [name for name in population.params if name in frozen]:
        population.buffers[name] = population.params.pop(name)
    if not population.params:
        return population
    context = Context(lambda: models[0], x, y, members, classes, tuple(seeds), schedule, label="steal")
    try:
        return fit(population, context, [CrossEntropy(), *parts])
    except ModelError:
        return None


@torch.no_grad()
def answers(
    population: Population | None, x: Float[Tensor, "n ..."], chunk: int = 256
) -> Float[Tensor, "S n C"] | None:
    """Return every model's eval-mode logits on the CPU; None for models that diverged."""
    if population is None:
        return None
    state = {**population.params, **population.buffers}
    device = next(iter(state.values())).device
    parts = [population.forward(p.to(device), training=False, per_model=False).cpu() for p in torch.split(x, chunk)]
    return torch.cat(parts, dim=1)
