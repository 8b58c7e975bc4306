"""VGG for large images, with its three linear layers."""

from __future__ import annotations

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS
from edgeward.nets.vgg import STAGES, WIDTHS


@NETS.register("vgg_imagenet")
def vgg_imagenet(
    depth: int = 16, channels: int = 3, classes: int = 1000, size: int = 224, width: float = 1.0, norm: bool = False
) -> nn.Module:
    """Return VGG-11, 13 or 16 with two hidden linear layers of 4096 `width` and dropout; `norm` normalises batches.

    Shapes: [n, channels, size, size] -> logits [n, classes]; `size` is a multiple of 32.
    Cost: 138,357,544 parameters at depth 16, 224 pixels, 1000 classes, of which 123.6 million in the linear layers.
    Source: Simonyan, Zisserman, arXiv 1409.1556, table 1; configuration D is VGG-16.
    """
    if depth not in STAGES or size % 32 or size < 32:
        raise ModelError(
            "VGG has no such form",
            expected="depth 11, 13 or 16 and a size divisible by 32",
            came=f"depth {depth}, size {size}",
            fix="for instance depth 16, size 224",
        )
    layers: list[nn.Module] = []
    inputs, hidden = channels, max(8, round(4096 * width))
    for count, full in zip(STAGES[depth], WIDTHS, strict=True):
        outputs = max(8, round(full * width))
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norm else [nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(inputs * (size // 32) ** 2, hidden), nn.ReLU(), nn.Dropout(0.5)]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, classes)]
    return he_normal(nn.Sequential(*layers))
