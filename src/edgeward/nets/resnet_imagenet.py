"""Residual networks for large images, with projected shortcuts."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS

# Blocks in each of the four stages, and whether they are bottlenecks (table 1 of the paper).
_DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True)}
_EXPANSION = 4


def normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the size at stride 1, and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


@final
class ProjectedBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 (with the stride), 1x1, and a shortcut projected where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        """Create the block; a bottleneck's result has 4 `width` channels."""
        super().__init__()
        outputs = _EXPANSION * width if bottleneck else width
        first = [*normed(inputs, width, 1), nn.ReLU()] if bottleneck else []
        middle = normed(width if bottleneck else inputs, width, 3, stride)
        self.body = nn.Sequential(*first, *middle, nn.ReLU(), *normed(width, outputs, 1 if bottleneck else 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*normed(inputs, outputs, 1, stride))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        return torch.relu(self.body(x) + self.shortcut(x))


@NETS.register("resnet_imagenet")
def resnet_imagenet(depth: int = 18, channels: int = 3, classes: int = 1000, width: int = 64) -> nn.Module:
    """Return ResNet-18, 34, 50 or 101 with the 7x7 stem and max pooling; stages have `width` x (1, 2, 4, 8).

    Shapes: [n, channels, size, size] -> logits [n, classes], size a multiple of 32 as a rule (224 in the paper).
    Cost: 11,689,512 parameters at depth 18, 25,557,032 at depth 50, 1000 classes.
    Source: He, Zhang, Ren, Sun, arXiv 1512.03385, table 1, option B; a bottleneck's stride is in its 3x3 convolution,
    as in the widespread implementation.
    """
    if depth not in _DEPTHS:
        known = ", ".join(map(str, _DEPTHS))
        raise ModelError("ResNet has no such depth", expected=known, came=str(depth), fix="choose one of these depths")
    blocks, bottleneck = _DEPTHS[depth]
    layers: list[nn.Module] = [*normed(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, count in enumerate(blocks):
        inner = width << stage
        for block in range(count):
            layers.append(ProjectedBlock(inputs, inner, 2 if stage and not block else 1, bottleneck))
            inputs = _EXPANSION * inner if bottleneck else inner
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return he_normal(nn.Sequential(*layers, *head), mode="fan_out")
