"""VGG for 32-pixel images."""

from __future__ import annotations

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS

# Convolutions in each of the five stages, by depth (table 1 of the paper, columns A, B, D).
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


@NETS.register("vgg")
def vgg(depth: int = 11, channels: int = 3, classes: int = 10, width: float = 1.0) -> nn.Module:
    """Return VGG-11, 13 or 16 with batch normalisation and one linear layer as the head.

    Shapes: [n, channels, 32, 32] -> logits [n, classes]. `width` scales all channels.
    Source: Simonyan, Zisserman, arXiv 1409.1556, table 1; the single-layer head is the usual CIFAR form.
    """
    if depth not in STAGES:
        raise ModelError(
            "VGG has no such depth", expected="11, 13 or 16", came=str(depth), fix="choose one of these depths"
        )
    layers: list[nn.Module] = []
    inputs = channels
    for count, full in zip(STAGES[depth], WIDTHS, strict=True):
        outputs = max(8, round(full * width))
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return he_normal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, classes)))
