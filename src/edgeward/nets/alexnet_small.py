"""AlexNet reduced to 32-pixel images."""

from __future__ import annotations

from torch import nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


@NETS.register("alexnet_small")
def alexnet_small(channels: int = 3, classes: int = 10, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """Return five convolutions and two linear layers in the proportions of AlexNet.

    Shapes: [n, channels, 32, 32] -> logits [n, classes].
    Source: Krizhevsky, Sutskever, Hinton, NeurIPS 2012, section 3.5, with strides and heads for 32 pixels as in the
    CIFAR target models of membership-inference studies (own dimensions).
    """
    first, second, third = width, 3 * width, 6 * width
    return he_normal(
        nn.Sequential(
            nn.Conv2d(channels, first, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(third, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * width * 4, 8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, classes),
        )
    )
