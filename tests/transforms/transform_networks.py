"""Small networks the transform tests share: an MLP, a plain and a residual convolutional one, and a separable one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeward.core.randomness import Seed
from edgeward.train.population import Factory, Population


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.body = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Separable(nn.Module):
    """Depthwise convolution, squeeze-and-excitation product, and concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 1)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.point = nn.Conv2d(6, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.point(torch.relu(self.norm(self.depth(self.stem(x)))))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return self.head(torch.cat([y, self.side(x)], dim=1).mean((2, 3)))


NETWORKS: dict[str, tuple[Factory, tuple[int, ...]]] = {
    "mlp": (mlp, (6,)),
    "vgg": (vgg, (2, 8, 8)),
    "residual": (Residual, (2, 5, 5)),
    "separable": (Separable, (2, 5, 5)),
}


def population(factory: Factory, size: int = 3, *, settle: tuple[int, ...] | None = None) -> Population:
    """Build models of different seeds; with an input shape, run two training forwards so that statistics differ."""
    models = Population.initialise(factory, [Seed(seed) for seed in range(size)])
    for step in range(2 if settle else 0):
        with torch.no_grad():
            models.forward(records(settle or (), 16, step), training=True, per_model=False)
    return models


def records(shape: tuple[int, ...], count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=Seed(seed).torch()) * 1.5 + 0.2
