"""MobileNetV3: inverted residuals with hard swish and squeeze-and-excitation."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.mobilenet_v2 import divisible
from edgeward.nets.registry import NETS

# Kernel, expanded channels, output channels, squeeze-and-excitation, hard swish, stride (tables 1 and 2 of the paper).
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
_KINDS = {"large": (_LARGE, 1280), "small": (_SMALL, 1024)}


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, swish: bool
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01), nn.Hardswish() if swish else nn.ReLU()]


@final
class SqueezeExcitation(nn.Module):
    """A gain per channel out of the channels' means: linear to a quarter, ReLU, linear back, hard sigmoid."""

    def __init__(self, channels: int) -> None:
        """Create the two 1x1 convolutions."""
        super().__init__()
        narrow = divisible(channels / 4)
        self.squeeze, self.excite = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return x times its gains."""
        gain = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gain)


@final
class GatedResidual(nn.Module):
    """Expand 1x1, filter depthwise, excite, project 1x1 without activation; add the input where the shapes agree."""

    def __init__(
        self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, excites: bool, swish: bool
    ) -> None:
        """Create the block."""
        super().__init__()
        expand = _convolution(inputs, wide, swish=swish) if wide != inputs else []
        depthwise = _convolution(wide, wide, kernel, stride, wide, swish=swish)
        # The published networks excite after the depthwise filter's activation.
        excite: list[nn.Module] = [SqueezeExcitation(wide)] if excites else []
        project = [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]
        self.conv = nn.Sequential(*expand, *depthwise, *excite, *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the block's result."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


@NETS.register("mobilenet_v3")
def mobilenet_v3(
    kind: str = "large",
    width: float = 1.0,
    channels: int = 3,
    classes: int = 1000,
    stem_stride: int = 2,
    dropout: float = 0.2,
) -> nn.Module:
    """Return MobileNetV3 with all channels scaled by `width`.

    Shapes: [n, channels, size, size] -> logits [n, classes]; for 32-pixel images use `stem_stride` 1.
    Cost: 5,483,032 parameters ("large") or 2,542,856 ("small") at width 1, 1000 classes.
    Source: Howard et al., arXiv 1905.02244, tables 1 and 2; where the squeeze narrows to a multiple of 8 and biases
    stand in the last two linear layers, as in the widespread implementation.
    """
    if kind not in _KINDS:
        raise ModelError("MobileNetV3 has no such kind", expected="'small' or 'large'", came=repr(kind), fix="'small'")
    blocks, last = _KINDS[kind]
    inputs = divisible(16 * width)
    layers: list[nn.Module] = _convolution(channels, inputs, 3, stem_stride, swish=True)
    for kernel, full_wide, full, excites, swish, stride in blocks:
        outputs, wide = divisible(full * width), divisible(full_wide * width)
        layers.append(GatedResidual(inputs, wide, outputs, kernel, stride, excites, swish))
        inputs = outputs
    layers += [*_convolution(inputs, 6 * inputs, swish=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    hidden = divisible(last * width)
    layers += [nn.Linear(6 * inputs, hidden), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(hidden, classes)]
    return he_normal(nn.Sequential(*layers), mode="fan_out")
