"""DP-SGD through Opacus: per-sample clipping, Gaussian noise, Poisson sampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError, ModelError
from edgeward.defenses.accounting import Spent, spent
from edgeward.defenses.clipping import Clipped
from edgeward.defenses.dp_norm import FittedGroupNorm, decoupled
from edgeward.defenses.dp_rehearsal import rehearse_gradients
from edgeward.defenses.renyi import SampledGaussian
from edgeward.train.part import Batch, Context, Loss, Needs, Part
from edgeward.train.population import Factory, Population
from edgeward.train.state import named_tensors


@final
@dataclass(frozen=True)
class DpSgd(Part):
    """Train each model under (epsilon, delta) differential privacy with Opacus.

    `noise` is the noise multiplier sigma, `clip` the per-sample gradient norm bound C. BatchNorm is
    replaced by GroupNorm.
    Guarantee: (epsilon, delta)-DP for add/remove of one record, for the released weights, as `accounting.spent` says
    (proved; assumed of the implementation of Opacus), before anything is trained; the noise comes from a seeded,
    non-cryptographic generator, so it holds against adversaries who do not know the seed; choosing settings on private
    data is not accounted. It is said of the last model, which ships; siblings with fewer records spend more.
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
            "noise, at least 0": 0 <= self.noise < math.inf,
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

            GradSampleModule.GRAD_SAMPLERS.setdefault(FittedGroupNorm, GradSampleModule.GRAD_SAMPLERS[nn.GroupNorm])
            module = decoupled(factory(), ModuleValidator.FIXERS)
            problems = ModuleValidator.validate(module, strict=False)
            problems += GradSampleModule.validate(module, strict=False)
            if problems:
                raise ModelError(
                    "the network has layers without per-sample gradients",
                    expected="layers that Opacus supports",
                    came="; ".join(dict.fromkeys(str(problem).splitlines()[0][:160] for problem in problems)),
                    fix="exchange the layers above, or leave dp_sgd out",
                )
            return module

        return wrapped

    def prepare(self, context: Context, population: Population) -> None:
        """Ask the accountant before the first epoch. Raises: `ConfigError` where it cannot say what will be spent."""
        self.spent(context)

    def train(self, context: Context, population: Population, losses: Sequence[Loss], parts: Sequence[Part]) -> None:
        """Train the models one after the other, each with its own noise and Poisson batches."""
        self._rehearse(context, population)
        for s in range(len(population)):
            state = named_tensors(self._train_one(context, population, s, losses))
            with torch.no_grad():
                for name, tensor in {**population.params, **population.buffers}.items():
                    tensor[s] = state[name]
            context.watcher.step(context.label, s + 1, len(population), "DP-SGD, one model after the other")

    def _rehearse(self, context: Context, population: Population) -> None:
        """Refuse a network whose per-sample gradients are not right, before the first step."""
        rows = context.members[0].nonzero().squeeze(1)[:2]
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = population.member(0, context.factory)
            rehearse_gradients(module, context.x[rows], context.y[rows], context.classes)

    def _train_one(self, context: Context, population: Population, s: int, losses: Sequence[Loss]) -> nn.Module:
        module = population.member(s, context.factory).train()
        rows = context.members[s].nonzero().squeeze(1)
        trained = [p for p in module.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(trained, lr=context.schedule.rate, momentum=0.0)
        alone = _of_one(context, s)
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
                    clipped.step(x, _per_sample(losses, batch, alone), context.classes)
        return module

    def epsilon(self, records: int, context: Context) -> tuple[float, float]:
        """Return (epsilon, delta) spent by one model trained on `records` records; infinite without noise."""
        found = self._accounted(records, context)
        return found.epsilon, found.delta

    def spent(self, context: Context) -> Spent:
        """Return what the last model of the population, which ships, spends on its own number of records."""
        return self._accounted(int(context.members[-1].sum()), context)

    def _accounted(self, records: int, context: Context) -> Spent:
        delta = self.delta or 1.0 / (10 * records)
        batches = math.ceil(records / context.schedule.batch)
        return spent(SampledGaussian(float(self.noise), drawn_rate(batches), context.schedule.epochs * batches), delta)

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """State (epsilon, delta) and the bound on membership inference it implies."""
        found = self.spent(context)
        epsilon, delta = found.epsilon, found.delta
        bound = min(1.0, math.exp(min(epsilon, 50.0)) * 0.01 + delta, 1 - math.exp(-epsilon) * (1 - delta - 0.01))
        text = (
            f"(epsilon, delta) = ({epsilon:.2f}, {delta:.1e})-DP for add/remove of one record; hence no membership "
            f"attack exceeds TPR {bound:.1%} at 1 % FPR"
            + ("" if bound < 0.999 else " (vacuous: the bound forbids nothing)")
        )
        evidence = (
            f"an upper bound; accountant: {found.accountant}; sigma {self.noise}, C {self.clip}, "
            f"{context.schedule.epochs} epochs"
        )
        return (
            Claim("training records", "holder of the model who does not know the noise seed", text, "proved", evidence),
        )


def drawn_rate(batches: int) -> float:
    """Return the rate at which records are really drawn for `batches` batches an epoch: not below 1 / batches.

    A record is drawn where a random multiple of 2^-24 below 1 is smaller than that.
    """
    return math.ceil(2**24 / batches) / 2**24


def _per_sample(losses: Sequence[Loss], batch: Batch, context: Context) -> Callable[[Tensor], Tensor]:
    """Return the sum of the losses of each record [B] of one model, as a function of its answers [B, C]."""
    return lambda logits: sum((f(logits[None], batch, context) for f in losses), start=torch.zeros(())).squeeze(0)


def _of_one(context: Context, s: int) -> Context:
    """Return the context of model `s` alone."""
    return Context(**{**vars(context), "memory": {k: v[s : s + 1] for k, v in context.memory.items()}})
