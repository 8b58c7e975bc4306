"""Residual networks for 32-pixel images, with parameter-free shortcuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS
from edgeward.nets.standardize import standardization


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that drops pixels and pads channels with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Create the block."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.extra == 0:
            return x
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


@final
class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks at 32, 16 and 8 pixels, global average pooling, one linear layer."""

    def __init__(self, blocks: int, channels: int, classes: int, width: int, standardize: nn.Module) -> None:
        """Create a network of 6 `blocks` + 2 layers."""
        super().__init__()
        self.standardize = standardize
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, 1)
        self.layer2 = self._stage(width, 2 * width, blocks, 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the logits."""
        x = torch.relu(self.bn1(self.conv1(self.standardize(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@NETS.register("resnet")
def resnet(
    depth: int = 20,
    channels: int = 3,
    classes: int = 10,
    width: int = 16,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Module:
    """Return the CIFAR ResNet of `depth` = 6 k + 2 layers (8, 14, 20, 32, 44, 56, 110).

    Shapes: [n, channels, 32, 32] -> logits [n, classes]. `mean` and `std` add a fixed standardisation of the input.
    Source: He, Zhang, Ren, Sun, arXiv 1512.03385, section 4.2 (identity shortcuts, option A). State-dict keys are
    those of the widespread implementation whose published weights reach 91.7 % with depth 20.

    >>> sum(p.numel() for p in resnet(20).parameters())
    269722
    """
    if depth < 8 or (depth - 2) % 6:
        raise ModelError(
            "this depth is not of the form 6 k + 2",
            expected="8, 14, 20, 32, 44, 56, ...",
            came=str(depth),
            fix=f"use {max(8, 6 * ((depth - 2) // 6) + 2)}",
        )
    first = standardization(mean, std, channels)
    return he_normal(ResNet((depth - 2) // 6, channels, classes, width, first))
