"""Densely connected networks for 32-pixel images."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


@final
class DenseLayer(nn.Module):
    """BN, ReLU, (1x1 convolution, BN, ReLU,) 3x3 convolution; the result is appended to the input's channels."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        """Create the layer; a bottleneck first narrows to 4 `growth` channels."""
        super().__init__()
        narrow = 4 * growth
        first = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, narrow, 1, bias=False)] if bottleneck else []
        inner = narrow if bottleneck else inputs
        last = [nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, growth, 3, padding=1, bias=False)]
        self.body = nn.Sequential(*first, *last)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return x with `growth` more channels."""
        return torch.cat([x, self.body(x)], dim=1)


@NETS.register("densenet")
def densenet(
    depth: int = 40,
    growth: int = 12,
    channels: int = 3,
    classes: int = 10,
    bottleneck: bool = False,
    compression: float = 1.0,
) -> nn.Module:
    """Return a DenseNet of three blocks; `bottleneck` and `compression` 0.5 give DenseNet-BC.

    Shapes: [n, channels, size, size] -> logits [n, classes].
    Source: Huang, Liu, van der Maaten, Weinberger, arXiv 1608.06993, section 3 and table 2.

    >>> round(sum(p.numel() for p in densenet(40, 12).parameters()) / 1e6, 1)
    1.0
    """
    per_layer = 2 if bottleneck else 1
    if depth < 4 + 3 * per_layer or (depth - 4) % (3 * per_layer):
        raise ModelError(
            "this depth does not divide into three dense blocks",
            expected=f"{3 * per_layer} k + 4",
            came=str(depth),
            fix=f"use {max(1, (depth - 4) // (3 * per_layer)) * 3 * per_layer + 4}",
        )
    width = 2 * growth if bottleneck else 16
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for stage in range(3):
        for _ in range((depth - 4) // (3 * per_layer)):
            layers.append(DenseLayer(width, growth, bottleneck))
            width += growth
        if stage < 2:
            kept = int(width * compression)
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, kept, 1, bias=False), nn.AvgPool2d(2)]
            width = kept
    head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return he_normal(nn.Sequential(*layers, *head))
