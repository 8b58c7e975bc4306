"""DS-CNN: the depthwise separable network of keyword spotting."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.mobilenet_v1 import ConvolutionUnit, Separable
from edgeward.nets.registry import NETS


@final
class DSCNN(nn.Module):
    """A strided 10x4 stem, separable blocks of one width, global average pooling, one linear layer."""

    def __init__(self, channels: int, classes: int, width: int, blocks: int, norm: bool) -> None:
        """Create the network."""
        super().__init__()
        stem = ConvolutionUnit(channels, width, (10, 4), 2, norm=norm)
        self.features = nn.Sequential(stem, *(Separable(width, width, 1, norm=norm, cap=False) for _ in range(blocks)))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


@NETS.register("ds_cnn")
def ds_cnn(channels: int = 1, classes: int = 12, width: int = 64, blocks: int = 4, *, norm: bool = True) -> nn.Module:
    """Return DS-CNN for spectrograms of [time, coefficients]; `norm` off: biases instead of batch normalisation.

    Shapes: [n, channels, 49, 10] (others fit too) -> logits [n, classes].
    Source: Zhang, Suda, Lai, Chandra, arXiv 1711.07128, section 3; the size is that of MLPerf Tiny's keyword spotting
    (Banbury et al., arXiv 2106.07597).

    >>> sum(p.numel() for p in ds_cnn(norm=False).parameters())
    22604
    """
    return he_normal(DSCNN(channels, classes, width, blocks, norm))
