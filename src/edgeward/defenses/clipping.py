"""Per-sample clipping through Opacus: whole per-sample gradients, or their norms alone where these are cheap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from edgeward.core.randomness import Seed
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


def _as_gathered(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
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

        Norms alone are used for plain sequences of linear and element-wise layers: there every parameter belongs to
        one layer that runs once, which ghost clipping assumes.
        """
        from opacus import PrivacyEngine

        loader = DataLoader(
            Rows(*records),
            batch_size=batch,
            shuffle=True,
            generator=seed.child("sampling").torch(),
            collate_fn=_as_gathered,
        )
        alone = dense_layers(module, records[0].dim() + 1) is not None
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
        return cls(made, private, poisson, alone)

    def step(self, losses: Float[Tensor, " B"]) -> None:
        """Take one step on the losses of a Poisson batch, which may be empty.

        A step on no record still adds noise, or an observer would learn that the batch was empty.
        """
        self.optimizer.zero_grad()
        torch.autograd.backward(losses.mean() if len(losses) else losses.sum(), retain_graph=self.norms_alone)
        if self.norms_alone:
            self._weighted(losses)
        self.optimizer.step()

    def _weighted(self, losses: Float[Tensor, " B"]) -> None:
        self.optimizer.zero_grad()
        self.module.disable_hooks()
        torch.autograd.backward((self.module.get_clipping_coef() * losses).sum())
        self.module.enable_hooks()
