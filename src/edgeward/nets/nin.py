"""Network in network."""

from __future__ import annotations

from torch import nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


def _stage(inputs: int, widths: tuple[int, int, int], kernel: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size, outputs in zip((kernel, 1, 1), widths, strict=True):
        layers += [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()]
        inputs = outputs
    return layers


@NETS.register("nin")
def nin(channels: int = 3, classes: int = 10, dropout: float = 0.5) -> nn.Module:
    """Return three convolutions, each followed by two 1x1 convolutions, and global average pooling as the head.

    Shapes: [n, channels, size, size] -> logits [n, classes].
    Source: Lin, Chen, Yan, arXiv 1312.4400, sections 3.2 and 4.1 (widths of the CIFAR-10 network).

    >>> sum(p.numel() for p in nin().parameters())
    966986
    """
    last = _stage(192, (192, 192, classes), 3)[:-1]
    return he_normal(
        nn.Sequential(
            *_stage(channels, (192, 160, 96), 5),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Dropout(dropout),
            *_stage(96, (192, 192, 192), 5),
            nn.AvgPool2d(3, stride=2, padding=1),
            nn.Dropout(dropout),
            *last,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )
