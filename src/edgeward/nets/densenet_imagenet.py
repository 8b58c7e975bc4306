"""Densely connected networks for large images: DenseNet-121 and its relatives."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.nets.densenet import DenseLayer
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS

# Layers of each dense block, by depth (table 1 of the paper).
_BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


@NETS.register("densenet_imagenet")
def densenet_imagenet(
    depth: int = 121, growth: int = 32, channels: int = 3, classes: int = 1000, blocks: Sequence[int] = ()
) -> nn.Module:
    """Return DenseNet-121, 169 or 201 with bottlenecks and compression 0.5; the stem has 2 `growth` channels.

    `blocks` are layers per dense block, where they shall be others than those of `depth`.

    Shapes: [n, channels, size, size] -> logits [n, classes]; size is a multiple of 32 (224 in the paper).
    Cost: 7,978,856 parameters at depth 121, growth 32, 1000 classes.
    Source: Huang, Liu, van der Maaten, Weinberger, arXiv 1608.06993, table 1.
    """
    if depth not in _BLOCKS:
        known = ", ".join(map(str, _BLOCKS))
        raise ModelError("DenseNet has no such depth", expected=known, came=str(depth), fix="choose one of these")
    width, blocks = 2 * growth, blocks or _BLOCKS[depth]
    stem = [nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)]
    layers: list[nn.Module] = [*stem, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(blocks):
        for _ in range(count):
            layers.append(DenseLayer(width, growth, bottleneck=True))
            width += growth
        if stage < len(blocks) - 1:
            narrow = nn.Conv2d(width, width // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(width), nn.ReLU(), narrow, nn.AvgPool2d(2)]
            width //= 2
    head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return he_normal(nn.Sequential(*layers, *head))
