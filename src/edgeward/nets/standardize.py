"""Standardisation of input channels as a fixed first layer, so that data sets deliver [0, 1] to every network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@final
class Standardize(nn.Module):
    """(x - mean) / std per channel, written as a depthwise 1x1 convolution so that every backend has its operator.

    It stays a layer of its own: folded into a convolution that pads with zeros it would change the border, where a
    zero means the mean colour, not black. The two constants are buffers and do not train.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Create the layer for len(mean) channels."""
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ConfigError(
                "these input statistics cannot be used",
                expected="one mean and one positive standard deviation per channel",
                came=f"mean {tuple(mean)}, std {tuple(std)}",
                fix="give both in the units of the records, for pixels in [0, 1]",
            )
        scale = 1 / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("weight", scale.float().reshape(-1, 1, 1, 1))
        self.register_buffer("bias", (-torch.tensor(mean, dtype=torch.float64) * scale).float())

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return standardised records of the same shape."""
        return F.conv2d(x, self.weight, self.bias, groups=len(self.bias))


def standardization(mean: Sequence[float], std: Sequence[float], channels: int) -> nn.Module:
    """Return the first layer for these statistics; none given: a layer that changes nothing."""
    if not mean and not std:
        return nn.Identity()
    if len(mean) != channels:
        raise ConfigError(
            "the input statistics do not fit the channels",
            expected=f"{channels} means and standard deviations",
            came=f"{len(mean)} and {len(std)}",
            fix="give one per channel",
        )
    return Standardize(mean, std)
