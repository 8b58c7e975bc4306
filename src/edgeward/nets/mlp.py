"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS


@NETS.register("mlp")
def mlp(features: int, hidden: Sequence[int] = (128, 128, 64), classes: int = 10) -> nn.Module:
    """Return a perceptron with rectified hidden layers and He initialisation.

    Shapes: [n, ...] of `features` elements per record -> logits [n, classes].
    Cost: sum of products of neighbouring widths, in weights and in MACs.
    Source: the 128-128-10 and 128-128-64 perceptrons of the secure-inference and microcontroller literature.

    >>> sum(p.numel() for p in mlp(784, (128, 128), 10).parameters())
    118282
    """
    widths = [features, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return he_normal(nn.Sequential(*layers, nn.Linear(widths[-1], classes)))
