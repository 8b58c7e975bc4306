"""MLPerf Tiny's residual network for 32-pixel images, with projection shortcuts."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS
from edgeward.nets.same_padding import SameConv2d


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, norm: bool) -> nn.Sequential:
    conv = SameConv2d(inputs, outputs, kernel, stride=stride, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if norm else nn.Sequential(conv)


@final
class ProjectionBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that is a strided 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        """Create the block."""
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride, norm)
        self.second = _convolution(outputs, outputs, 3, 1, norm)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else SameConv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        y: Tensor = self.second(torch.relu(self.first(x)))
        return torch.relu(self.shortcut(x) + y)


@final
class TinyResNet(nn.Module):
    """A 3x3 stem and one block each at 32, 16 and 8 pixels, global average pooling, one linear layer."""

    def __init__(self, channels: int, classes: int, width: int, norm: bool) -> None:
        """Create the network."""
        super().__init__()
        self.stem = _convolution(channels, width, 3, 1, norm)
        self.block1 = ProjectionBlock(width, width, 1, norm)
        self.block2 = ProjectionBlock(width, 2 * width, 2, norm)
        self.block3 = ProjectionBlock(2 * width, 4 * width, 2, norm)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the logits."""
        x = self.block3(self.block2(self.block1(torch.relu(self.stem(x)))))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@NETS.register("resnet_tiny")
def resnet_tiny(channels: int = 3, classes: int = 10, width: int = 16, *, norm: bool = True) -> nn.Module:
    """Return the ResNet-8 of MLPerf Tiny's image classification; `norm` off: biases, no batch normalisation.

    Shapes: [n, channels, 32, 32] -> logits [n, classes].
    Source: Banbury et al., arXiv 2106.07597; it has one block per stage and projection shortcuts (option B of He et
    al., arXiv 1512.03385), unlike `resnet`.

    >>> sum(p.numel() for p in resnet_tiny(norm=False).parameters())
    77706
    """
    return he_normal(TinyResNet(channels, classes, width, norm))
