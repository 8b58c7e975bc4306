"""MobileNetV1: depthwise separable convolutions, with the padding of the published weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS
from edgeward.nets.same_padding import SameConv2d
from edgeward.nets.standardize import standardization

# Output channels at width 1 and stride of each separable block (table 1 of the paper).
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


@final
class ConvolutionUnit(nn.Module):
    """A "SAME" convolution, batch normalisation unless `norm` is off, and a rectifier, capped at 6 or not."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        groups: int = 1,
        norm: bool = True,
        cap: bool = False,
    ) -> None:
        """Create the unit; without `norm` the convolution has a bias."""
        super().__init__()
        self.conv = SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=not norm)
        if norm:
            self.norm = nn.BatchNorm2d(outputs)
        self.normalised, self.cap = norm, cap

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the rectified result."""
        y = self.conv(x)
        if self.normalised:
            y = self.norm(y)
        return F.relu6(y) if self.cap else torch.relu(y)


@final
class Separable(nn.Module):
    """A 3x3 filter per channel (`dw`), then a 1x1 mixture of the channels (`pw`)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, norm: bool, cap: bool) -> None:
        """Create the block."""
        super().__init__()
        self.dw = ConvolutionUnit(inputs, inputs, 3, stride, groups=inputs, norm=norm, cap=cap)
        self.pw = ConvolutionUnit(inputs, outputs, 1, norm=norm, cap=cap)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the block's result."""
        y: Tensor = self.pw(self.dw(x))
        return y


@final
class MobileNetV1(nn.Module):
    """A strided 3x3 stem, 13 separable blocks, global average pooling, one linear layer."""

    def __init__(self, features: nn.Sequential, standardize: nn.Module, classifier: nn.Linear) -> None:
        """Join the parts."""
        super().__init__()
        self.standardize, self.features, self.classifier = standardize, features, classifier

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the logits."""
        x = self.features(self.standardize(x))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@NETS.register("mobilenet_v1")
def mobilenet_v1(
    width: float = 1.0,
    channels: int = 3,
    classes: int = 1000,
    *,
    norm: bool = True,
    rectifier: Literal["relu", "relu6"] = "relu6",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Module:
    """Return MobileNetV1 with all channels scaled by `width`; `norm` off: biases instead of batch normalisation.

    Shapes: [n, channels, size, size] -> logits [n, classes]. `mean` and `std` add a fixed standardisation of the input.
    Cost: 4,231,976 parameters and 568.74 MMAC at width 1, 224 pixels, 1000 classes.
    Source: Howard et al., arXiv 1704.04861, table 1. MLPerf Tiny's person detector is width 0.25, 96 pixels, 2 classes,
    `rectifier` "relu" (Banbury et al., arXiv 2106.07597); the ImageNet weights have "relu6".

    >>> sum(p.numel() for p in mobilenet_v1(0.25, classes=2, norm=False).parameters())
    210850
    """
    cap, inputs = rectifier == "relu6", int(32 * width)
    layers: list[nn.Module] = [ConvolutionUnit(channels, inputs, 3, 2, norm=norm, cap=cap)]
    for full, stride in _BLOCKS:
        outputs = int(full * width)
        layers.append(Separable(inputs, outputs, stride, norm=norm, cap=cap))
        inputs = outputs
    first = standardization(mean, std, channels)
    return he_normal(MobileNetV1(nn.Sequential(*layers), first, nn.Linear(inputs, classes)))
