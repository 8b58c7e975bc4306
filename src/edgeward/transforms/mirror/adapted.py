"""`Adapted`: a copy of a stage that reads another backbone's features, turned into those it was trained on."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError

RIDGE = 1e-3
"""Weight of the regularisation, as a share of the mean variance of the features."""


@final
class Adapted(nn.Module):
    """copy(adapt(x)): a convolution of images or a linear layer on vectors, rectified where the victim's values are.

    It starts as the identity; `fit` sets it by least squares.
    """

    def __init__(self, shape: tuple[int, ...], rectified: bool, copy: nn.Module, side: int = 3) -> None:
        """Adapt values of `shape` by kernels of `side` (1 or 3) pixels; raises `ModelError` for tokens."""
        super().__init__()
        if len(shape) not in (1, 3):
            raise ModelError("only images and vectors are adapted", expected="[C, H, W] or [F]", came=str(shape))
        channels = shape[0]
        image = len(shape) == 3
        self.adapt = nn.Conv2d(channels, channels, side, padding=side // 2) if image else nn.Linear(channels, channels)
        self.rectified, self.copy, self.side = rectified, copy, side
        nn.init.zeros_(self.adapt.bias)  # type: ignore[arg-type]
        nn.init.dirac_(self.adapt.weight) if image else nn.init.eye_(self.adapt.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the copied stage makes of the adapted features."""
        adapted = self.adapt(x)
        result: Tensor = self.copy(torch.relu(adapted) if self.rectified else adapted)
        return result

    @torch.no_grad()
    def fit(self, given: Float[Tensor, "n ..."], wanted: Float[Tensor, "n ..."], chunk: int = 50) -> float:
        """Set the adapter to the ridge regression of `wanted` on `given`; return the share of variance it explains.

        Cost: one pass over the records and one solution of size side^2 C + 1 (C + 1 for vectors).
        """
        size = self.adapt.weight[0].numel() + 1
        gram = torch.zeros(size, size, dtype=torch.float64)
        moment = torch.zeros(size, len(self.adapt.weight), dtype=torch.float64)
        total, count = torch.zeros(2, dtype=torch.float64), 0
        for x, y in zip(torch.split(given, chunk), torch.split(wanted, chunk), strict=True):
            rows, targets = _rows(x.float(), y.float(), self.side)
            gram += (rows.T @ rows).double()
            moment += (rows.T @ targets).double()
            total += torch.stack([targets.double().sum(), targets.double().square().sum()])
            count += targets.numel()
        ridge = RIDGE * float(gram.diagonal()[:-1].mean())
        solution = torch.linalg.solve(gram + ridge * torch.eye(size, dtype=torch.float64), moment)
        self.adapt.weight.copy_(solution[:-1].T.reshape(self.adapt.weight.shape))
        self.adapt.bias.copy_(solution[-1])  # type: ignore[union-attr]
        residual = total[1] - 2 * (solution * moment).sum() + (solution * (gram @ solution)).sum()
        return float(1 - residual / (total[1] - total[0] ** 2 / count))


def _rows(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return (windows with a one, values) as matrices."""
    if x.dim() == 4:
        x = F.unfold(x, side, padding=side // 2).transpose(1, 2).flatten(0, 1)
        y = y.flatten(2).transpose(1, 2).flatten(0, 1)
    return torch.cat([x, torch.ones(len(x), 1)], 1), y
