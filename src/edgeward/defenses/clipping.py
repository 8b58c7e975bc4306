"""Per-sample clipping through Opacus: whole per-sample gradients, or their norms alone where these are cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from edgeward.core.randomness import Seed
from edgeward.defenses.dp_norm import own_outputs
from edgeward.train.dense import dense_layers


@final
class Rows(Dataset[tuple[Tensor, ...]]):
    """Tensors whose first axis counts records; a batch is gathered in one call, not record by record."""

    def __init__(self, *tensors: Tensor) -> None:
        """Hold `tensors` of equal length."""
        self._tensors = tensors

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Return one record."""
        return tuple(tensor[index] for tensor in self._tensors)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Return a batch, which a data loader asks for in this form; it may be empty."""
        rows = torch.tensor(indices, dtype=torch.int64)
        return tuple(tensor[rows] for tensor in self._tensors)


def _as_gathered(batch: Any) -> Any:
    """Return what `__getitems__` gathered: tensors of a batch, where a data loader expects a list of records."""
    return batch


@final
@dataclass(frozen=True)
class Clipped:
    """A module, its optimiser and its Poisson batches under DP-SGD, as Opacus made them.

    `module` must be in training mode. `norms_alone` chooses between two forms of the same step, equal up to rounding:
    a gradient for each record, clipped and summed; or the norms of those gradients from each layer's inputs and output
    gradients, and a second backward pass through the losses weighted by their clipping factors. The second form never
    holds a gradient per record: for a dense layer of m inputs and n outputs it costs m + n operations per record
    instead of m n.
    Source: Goodfellow, arXiv 1510.01799 (norms); Li et al., ICLR'22 (ghost clipping); Opacus, mode "ghost".
    """

    module: Any
    optimizer: Any
    loader: DataLoader[tuple[Tensor, ...]]
    norms_alone: bool

    @classmethod
    def make(
        cls,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        records: tuple[Float[Tensor, "m ..."], Int[Tensor, " m"], Int[Tensor, " m"]],
        *,
        batch: int,
        noise: float,
        clip: float,
        seed: Seed,
    ) -> Clipped:
        """Hand a module to Opacus; sampling and noise each have their own generator under `seed`.

        Norms alone are used for plain sequences of linear and element-wise layers, all trained: there every parameter
        belongs to one layer that runs once, which ghost clipping assumes.
        """
        from opacus import PrivacyEngine

        loader = DataLoader(
            Rows(*records),
            batch_size=batch,
            shuffle=True,
            generator=seed.child("sampling").torch(),
            collate_fn=_as_gathered,
        )
        dense = dense_layers(module, records[0].dim() + 1) is not None
        alone = dense and all(p.requires_grad for p in module.parameters())
        # The criterion that the mode "ghost" returns as well is for losses of (input, target); `step` does its work.
        made, private, *_, poisson = PrivacyEngine(accountant="prv").make_private(
            module=module,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=clip,
            noise_generator=seed.child("noise").torch(),
            grad_sample_mode="ghost" if alone else "hooks",
        )
        # Opacus takes as many steps as 1 / (1 / batches) rounds down to: for 93 batches 92, not what is accounted.
        batches = len(loader)
        poisson.batch_sampler.steps = batches
        private.expected_batch_size = max(1, len(records[0]) // batches)
        own_outputs(made)
        return cls(made, private, poisson, alone)

    def step(self, x: Float[Tensor, "B ..."], losses: Callable[[Tensor], Float[Tensor, " B"]], classes: int) -> None:
        """Take one step on the losses, a function of the answers [B, classes], of a Poisson batch; it may be empty.

        A step on no record still adds noise, or an observer would learn that the batch was empty. The network is not
        asked about no record, which not every layer can answer.
        """
        self.optimizer.zero_grad()
        values = losses(self.module(x) if len(x) else torch.zeros(0, classes, requires_grad=True))
        if len(x) and self.norms_alone:
            self._weighted(values)
        elif len(x):
            torch.autograd.backward(values.mean())
        self._complete(len(x))
        self.optimizer.step()
        for buffer in self.module.buffers():
            buffer.detach_()

    def _weighted(self, losses: Float[Tensor, " B"]) -> None:
        torch.autograd.backward(losses.mean(), retain_graph=True)
        self.optimizer.zero_grad()
        self.module.disable_hooks()
        torch.autograd.backward((self.module.get_clipping_coef() * losses).sum())
        self.module.enable_hooks()

    def _complete(self, count: int) -> None:
        """Give a gradient of 0 to every parameter that these records did not reach."""
        for p in self.optimizer.params:
            if self.norms_alone and p.grad is None:
                p.grad = torch.zeros_like(p)
            elif not self.norms_alone and getattr(p, "grad_sample", None) is None:
                p.grad_sample = p.new_zeros(count, *p.shape)
