"""A small convolutional network for 28- and 32-pixel images."""

from __future__ import annotations

from torch import nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


def block(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    """Return a 3x3 convolution that keeps the size, optional batch normalisation, and a rectifier."""
    norm: list[nn.Module] = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm), *norm, nn.ReLU()]


@NETS.register("small_cnn")
def small_cnn(
    channels: int = 1, size: int = 28, classes: int = 10, width: int = 16, batch_norm: bool = True
) -> nn.Module:
    """Return four 3x3 convolutions (width, width, 2 width, 4 width) with three 2x2 max poolings and a linear head.

    Shapes: [n, channels, size, size] -> logits [n, classes]; `size` at least 8.
    Source: the plain CNN of membership-inference studies on MNIST and CIFAR-10 (own dimensions).
    """
    side = size // 8
    return he_normal(
        nn.Sequential(
            *block(channels, width, batch_norm),
            *block(width, width, batch_norm),
            nn.MaxPool2d(2),
            *block(width, 2 * width, batch_norm),
            nn.MaxPool2d(2),
            *block(2 * width, 4 * width, batch_norm),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width * side * side, classes),
        )
    )
