"""LeNet-5 in its modern form."""

from __future__ import annotations

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


@NETS.register("lenet")
def lenet(channels: int = 1, size: int = 28, classes: int = 10) -> nn.Module:
    """Return LeNet-5 with rectifiers and max pooling.

    Shapes: [n, channels, size, size] -> logits [n, classes]; 28-pixel inputs are padded to 32 by the first layer.
    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, fig. 2;
    full connections between the maps, ReLU and max pooling as usual today.

    >>> sum(p.numel() for p in lenet(channels=3, size=32).parameters())
    62006
    """
    if size not in (28, 32):
        raise ModelError(
            "LeNet takes images of 28 or 32 pixels",
            expected="size 28 or 32",
            came=str(size),
            fix="resize the records, or use the network 'small_cnn'",
        )
    return he_normal(
        nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2 if size == 28 else 0),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )
    )
