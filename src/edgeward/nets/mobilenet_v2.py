"""MobileNetV2: inverted residuals with linear bottlenecks."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS

# Expansion t, output channels c, repeats n, stride s of the first repeat (table 2 of the paper).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def divisible(channels: float, by: int = 8) -> int:
    """Round to a multiple of `by` that is at least `by` and loses at most a tenth.

    >>> divisible(32 * 0.35), divisible(24 * 0.35), divisible(16 * 0.75)
    (16, 8, 16)
    """
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return convolution, batch normalisation and ReLU6."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]


@final
class InvertedResidual(nn.Module):
    """Expand 1x1, filter depthwise 3x3, project 1x1 without activation; add the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        """Create the block."""
        super().__init__()
        wide = inputs * expansion
        expand = convolution(inputs, wide) if expansion != 1 else []
        project = [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, *convolution(wide, wide, 3, stride, groups=wide), *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the block's result."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


@NETS.register("mobilenet_v2")
def mobilenet_v2(
    width: float = 1.0, channels: int = 3, classes: int = 1000, stem_stride: int = 2, dropout: float = 0.2
) -> nn.Module:
    """Return MobileNetV2 with all channels scaled by `width`; the last 1280 grow only where `width` > 1.

    Shapes: [n, channels, size, size] -> logits [n, classes]; for 32-pixel images use `stem_stride` 1.
    Cost: 3,504,872 parameters and 300.77 MMAC at width 1, 224 pixels, 1000 classes.
    Source: Sandler, Howard, Zhu, Zhmoginov, Chen, arXiv 1801.04381, table 2 and section 4.
    """
    inputs = divisible(32 * width)
    layers: list[nn.Module] = convolution(channels, inputs, 3, stem_stride)
    for expansion, full, repeats, stride in _STAGES:
        outputs = divisible(full * width)
        for repeat in range(repeats):
            layers.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
            inputs = outputs
    last = divisible(1280 * max(1.0, width))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(last, classes)]
    module = he_normal(nn.Sequential(*layers, *convolution(inputs, last), *head), mode="fan_out")
    nn.init.normal_(head[-1].weight, std=0.01)  # type: ignore[arg-type]
    return module
