"""`MirrorObjective`: what backbone and monitor are trained for, in the three presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError
from edgeward.train.part import Batch, Context, Loss, Needs, Part, weighted_mean
from edgeward.train.population import Population

Preset = Literal["faithful", "anti", "public"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
_WARM_UP = 0.25
"""Share of the epochs in which the flood level rests."""


@final
@dataclass(frozen=True)
class MirrorObjective(Part):
    """L_auth = CE + T^2 KL(teacher || monitor), and what the preset does to the backbone's own answer.

    The network returns [authorised, direct] logits. "faithful" adds weight |mean CE(direct) - b|, where the flood level
    b is moved after every epoch until the direct accuracy on validation is the authorised one less `gap`; "anti"
    adds -weight min(CE(direct), ln(classes) + 0.2); "public" leaves the backbone alone (it is frozen, and may be
    replaced by its features).

    `teacher` [S, K, n, C] are the victim's logits on the records (K = 1) and on their mirror images (K = 2), from which
    each step draws. `cached`: the records are features [n, K, D] made before the training; else images are flipped
    here.

    Guarantee: none by itself. The gap of direct use does not measure security; the stealing audit does.
    Source: Liu et al., MirrorNet, ICCAD 2023 (a deliberately less accurate backbone); flooding: Ishida et al.,
    ICML 2020, equation 1; distillation: Hinton et al. 2015.
    """

    slug: ClassVar[str] = "mirror_objective"
    needs: ClassVar[Needs] = Needs(per_sample_loss=False, touches_records_outside_loss=True, feeds_records=False)

    preset: str
    teacher: Float[Tensor, "S K n C"]
    gap: float = 0.2
    weight: float = 1.0
    temperature: float = 2.0
    cached: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot train, all at once."""
        rules = {
            f"preset one of {', '.join(PRESETS)}": self.preset in PRESETS,
            "gap above 0 and below 1": 0 < self.gap < 1,
            "weight at least 0, temperature above 0": self.weight >= 0 and self.temperature > 0,
            "one or two views of each record": self.teacher.shape[1] in (1, 2),
            "cached features only with a frozen backbone (public)": not self.cached or self.preset == "public",
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError("this mirror cannot be trained", expected="; ".join(broken))

    def prepare(self, context: Context, population: Population) -> None:
        """Start with a flood level that leaves about half of the classes' entropy."""
        if self.preset == "faithful" and "flood" not in context.memory:
            context.memory["flood"] = torch.full((len(context.members),), math.log(context.classes) / 2)
            context.memory["authorised"] = torch.zeros(len(context.members))

    def augment(self, context: Context, batch: Batch) -> Batch:
        """Draw a view of every record and attach the teacher's softened answer to that view."""
        views = self.teacher.shape[1]
        view = torch.randint(views, batch.index.shape, device=batch.index.device)
        model = torch.arange(len(batch.index))[:, None]
        logits = self.teacher[model, view, batch.index].float()
        target = (logits / self.temperature).softmax(-1).to(batch.x.device)
        view = view.to(batch.x.device)
        if self.cached:
            place = view[..., None, None].expand(*view.shape, 1, batch.x.shape[-1])
            x = batch.x.gather(2, place).squeeze(2).float()
        else:
            x = torch.where(view.view(*view.shape, *[1] * (batch.x.dim() - 2)) == 1, batch.x.flip(-1), batch.x)
        return replace(batch, x=x, target=target)

    def loss(self) -> Loss:
        """Return the loss per sample, constant terms left out."""

        def value(logits: Tensor, batch: Batch, context: Context) -> Tensor:
            answers = torch.split(logits, context.classes, dim=-1)
            found = _cross_entropy(answers[0], batch.y)
            if batch.target is not None:
                soft = (answers[0] / self.temperature).log_softmax(-1)
                found = found - self.temperature**2 * (batch.target * soft).sum(-1)
            if self.preset == "public":
                return found
            direct = _cross_entropy(answers[1], batch.y)
            if self.preset == "anti":
                return found - self.weight * direct.clamp(max=math.log(context.classes) + 0.2)
            flood = context.memory["flood"].to(direct.device)
            return found + self.weight * (weighted_mean(direct, batch.weight) - flood).abs()[:, None]

        return value

    def on_epoch(self, context: Context, population: Population) -> None:
        """Move the flood level by the miss of direct use on validation: up where it is too accurate, else down.

        The aim is `gap` below the best authorised accuracy so far; nothing moves while the monitor is still warming up.
        The network follows the level late, so that steps in proportion settle where halving a bracket does not.
        """
        if self.preset != "faithful" or context.validation is None:
            return
        authorised, direct = accuracies(population, *context.validation, context.classes)
        best, flood = context.memory["authorised"], context.memory["flood"]
        best.copy_(torch.maximum(best, authorised))
        if context.epoch > _WARM_UP * context.schedule.epochs:
            miss = direct - (best - self.gap).clamp(min=1 / context.classes)
            flood.add_(math.log(context.classes) * miss).clamp_(min=0.0)

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """State what the training aims at, and that only the audit says what it achieved."""
        text = {
            "faithful": f"the backbone alone was trained to be {self.gap:.1%} less accurate",
            "anti": "the backbone alone was trained to answer wrongly",
            "public": "the normal world's weights never saw the private records",
        }[self.preset]
        if self.preset == "public":
            return (
                Claim("model weights", "reader of the normal world", text, "proved", "construction: frozen backbone"),
            )
        return (Claim("model weights", "reader of the normal world", text, "measured", "direct use, stealing audit"),)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, y[..., None]).squeeze(-1)


def accuracies(population: Population, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the authorised and the direct accuracy [S] of mirrors that return both answers."""
    logits = population.logits(x, chunk=1000).cpu()
    correct = [(part.argmax(-1) == y).float().mean(1) for part in torch.split(logits, classes, dim=-1)]
    return correct[0], correct[-1]
