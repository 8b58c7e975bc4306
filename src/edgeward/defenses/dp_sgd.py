"""DP-SGD through Opacus: per-sample clipping, Gaussian noise, Poisson sampling and the PRV accountant."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.defenses.dp_norm import FittedGroupNorm, decoupled, own_outputs
from edgeward.defenses.dp_rehearsal import rehearse_gradients
from edgeward.train.part import Batch, Context, Loss, Needs, Part
from edgeward.train.population import Factory, Population
from edgeward.train.state import named_tensors


@final
@dataclass(frozen=True)
class DpSgd(Part):
    """Train each model under (epsilon, delta) differential privacy with Opacus.

    `noise` is the noise multiplier sigma, `clip` the per-sample gradient norm bound C. BatchNorm is
    replaced by GroupNorm (`FittedGroupNorm`).
    Guarantee: (epsilon, delta)-DP for add/remove of one record, for the released weights, as accounted by Opacus
    (proved by its accountant, assumed of its implementation); the noise comes from a seeded, non-cryptographic
    generator, so it holds against adversaries who do not know the seed; choosing settings on private data is not
    accounted.
    Cost: one pass per model, each step with per-sample gradients; models train one after the other.
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
        dataset = TensorDataset(context.x[rows], context.y[rows], rows)
        rate = context.schedule.rate
        sgd = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=rate, momentum=0.0)
        with warnings.catch_warnings():
            # Opacus warns that its noise generator is not a CSPRNG; the claim of this part says the same
            warnings.simplefilter("ignore")
            private, optimizer, loader = _private(self, module, sgd, dataset, context, context.seeds[s].child("dp"))
            for _ in range(context.schedule.epochs):
                for x, y, index in loader:
                    _step(private, optimizer, x, y, index, s, losses, context)
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


def _private(
    part: DpSgd, module: nn.Module, sgd: torch.optim.Optimizer, dataset: TensorDataset, context: Context, seed: Seed
) -> tuple[Any, Any, Any]:
    from opacus import PrivacyEngine

    generator = seed.child("sampling").torch()
    loader = DataLoader(dataset, batch_size=context.schedule.batch, shuffle=True, generator=generator)
    engine = PrivacyEngine(accountant="prv")
    made: tuple[Any, Any, Any] = engine.make_private(
        module=module,
        optimizer=sgd,
        data_loader=loader,
        noise_multiplier=part.noise,
        max_grad_norm=part.clip,
        noise_generator=seed.child("noise").torch(),
    )
    own_outputs(made[0])
    return made


def _step(
    private: nn.Module,
    optimizer: Any,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    s: int,
    losses: Sequence[Loss],
    context: Context,
) -> None:
    batch = Batch(x[None], y[None], index[None], torch.ones(1, len(x)))
    optimizer.zero_grad()
    # a Poisson batch may be empty; its step still adds noise, or an observer would learn that it was empty
    logits = private(x) if len(x) else torch.zeros(0, context.classes, requires_grad=True)
    loss = sum((f(logits[None], batch, _of_one(context, s)) for f in losses), start=torch.zeros(()))
    torch.autograd.backward(loss.mean() if len(x) else loss.sum())
    for parameter in optimizer.params:
        if getattr(parameter, "grad_sample", None) is None:  # not reached by these records
            parameter.grad_sample = parameter.new_zeros(len(x), *parameter.shape)
    optimizer.step()
    for buffer in private.buffers():
        buffer.detach_()


def _of_one(context: Context, s: int) -> Context:
    """Return the context of model `s` alone."""
    return Context(**{**vars(context), "memory": {k: v[s : s + 1] for k, v in context.memory.items()}})
