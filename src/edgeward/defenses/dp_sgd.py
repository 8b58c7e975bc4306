"""DP-SGD through Opacus: per-sample clipping, Gaussian noise, Poisson sampling and the PRV accountant."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError, ModelError
from edgeward.defenses.clipping import Clipped
from edgeward.train.part import Batch, Context, Loss, Needs, Part
from edgeward.train.population import Factory, Population


@final
@dataclass(frozen=True)
class DpSgd(Part):
    """Train each model under (epsilon, delta) differential privacy with Opacus.

    `noise` is the noise multiplier sigma, `clip` the per-sample gradient norm bound C. BatchNorm is
    replaced by GroupNorm.
    Guarantee: (epsilon, delta)-DP for add/remove of one record, for the released weights, as accounted by Opacus
    (proved by its accountant, assumed of its implementation); the noise comes from a seeded, non-cryptographic
    generator, so it holds against adversaries who do not know the seed; choosing settings on private data is not
    accounted.
    Cost: models train one after the other; each step costs per-sample gradients, or in a perceptron their norms and a
    second backward pass (see `clipping`).
    Source: Abadi et al. CCS'16; Opacus 1.6.
    """

    slug: ClassVar[str] = "dp_sgd"
    needs: ClassVar[Needs] = Needs(
        owns_optimizer=True, owns_order=True, forbids_batch_norm=True, differentially_private=True
    )

    noise: float = 1.0
    clip: float = 1.0
    delta: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that Opacus cannot use."""
        rules = {
            "noise, at least 0": self.noise >= 0,
            "clip, above 0": self.clip > 0,
            "delta, between 0 and 1": self.delta is None or 0 < self.delta < 1,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError("DP-SGD cannot train", expected="; ".join(broken), came=repr(self))

    def wrap_factory(self, factory: Factory) -> Factory:
        """Replace layers that couple samples (BatchNorm by GroupNorm)."""

        def wrapped() -> nn.Module:
            from opacus.grad_sample import GradSampleModule
            from opacus.validators import ModuleValidator

            module = _decoupled(factory(), ModuleValidator.FIXERS)
            problems = ModuleValidator.validate(module, strict=False)
            problems += GradSampleModule.validate(module, strict=False)
            if problems:
                raise ModelError(
                    "the network has layers without per-sample gradients",
                    expected="layers that Opacus supports",
                    came="; ".join(str(problem) for problem in problems),
                    fix="exchange the layers above, or leave dp_sgd out",
                )
            return module

        return wrapped

    def train(self, context: Context, population: Population, losses: Sequence[Loss], parts: Sequence[Part]) -> None:
        """Train the models one after the other, each with its own noise and Poisson batches."""
        for s in range(len(population)):
            module = self._train_one(context, population, s, losses)
            state = module.state_dict()
            with torch.no_grad():
                for name, tensor in {**population.params, **population.buffers}.items():
                    tensor[s] = state[name]
            context.watcher.step(context.label, s + 1, len(population), "DP-SGD, one model after the other")

    def _train_one(self, context: Context, population: Population, s: int, losses: Sequence[Loss]) -> nn.Module:
        module = population.member(s, context.factory).train()
        rows = context.members[s].nonzero().squeeze(1)
        sgd = torch.optim.SGD(module.parameters(), lr=context.schedule.rate, momentum=0.0)
        memory = {name: tensor[s : s + 1] for name, tensor in context.memory.items()}
        alone = Context(**{**vars(context), "memory": memory})
        with warnings.catch_warnings():
            # Opacus warns that its noise generator is not a CSPRNG; the claim of this part says the same
            warnings.simplefilter("ignore")
            clipped = Clipped.make(
                module,
                sgd,
                (context.x[rows], context.y[rows], rows),
                batch=context.schedule.batch,
                noise=self.noise,
                clip=self.clip,
                seed=context.seeds[s].child("dp"),
            )
            for _ in range(context.schedule.epochs):
                for x, y, index in clipped.loader:
                    batch = Batch(x[None], y[None], index[None], torch.ones(1, len(x)))
                    clipped.step(_per_sample(clipped.module(x), batch, losses, alone))
        return module

    def epsilon(self, records: int, context: Context) -> tuple[float, float]:
        """Return (epsilon, delta) spent by one model trained on `records` records; infinite without noise."""
        from opacus.accountants import PRVAccountant

        delta = self.delta or 1.0 / (10 * records)
        if self.noise == 0:
            return math.inf, delta
        batches = math.ceil(records / context.schedule.batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accountant = PRVAccountant()
            accountant.history = [(self.noise, 1.0 / batches, context.schedule.epochs * batches)]
            return float(accountant.get_epsilon(delta=delta)), delta

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """State (epsilon, delta) and the bound on membership inference it implies."""
        epsilon, delta = self.epsilon(int(context.members.sum(1).min()), context)
        bound = min(1.0, math.exp(min(epsilon, 50.0)) * 0.01 + delta, 1 - math.exp(-epsilon) * (1 - delta - 0.01))
        text = (
            f"(epsilon, delta) = ({epsilon:.2f}, {delta:.1e})-DP for add/remove of one record; hence no membership "
            f"attack exceeds TPR {bound:.1%} at 1 % FPR"
            + ("" if bound < 0.999 else " (vacuous: the bound forbids nothing)")
        )
        evidence = f"PRV accountant of Opacus, sigma {self.noise}, C {self.clip}, {context.schedule.epochs} epochs"
        return (
            Claim("training records", "holder of the model who does not know the noise seed", text, "proved", evidence),
        )


def _decoupled(module: nn.Module, fixers: Mapping[Any, Callable[[nn.Module], nn.Module]]) -> nn.Module:
    """Replace every BatchNorm by a GroupNorm of as many channels, and what else Opacus knows to replace.

    Flat features get one group: with a channel per group nothing of the input would be left. Layers are exchanged one
    by one, since Opacus' own `fix` pickles the whole network, which a user's class need not support.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        channels = module.num_features
        groups = 1 if isinstance(module, nn.BatchNorm1d) else math.gcd(32, channels)
        return nn.GroupNorm(groups, channels, eps=module.eps, affine=module.affine)
    for name, child in module.named_children():
        setattr(module, name, _decoupled(child, fixers))
    fixer = fixers.get(type(module))
    return module if fixer is None else fixer(module)


def _per_sample(logits: Tensor, batch: Batch, losses: Sequence[Loss], context: Context) -> Tensor:
    """Return the sum of the losses of each record [B] of one model."""
    return sum((f(logits[None], batch, context) for f in losses), start=torch.zeros(())).squeeze(0)
