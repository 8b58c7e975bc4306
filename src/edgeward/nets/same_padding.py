"""Convolution with TensorFlow's "SAME" padding, which published edge networks were trained with."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis so that ceil(size / stride) values come out; the odd one goes after.

    >>> same_padding(96, 3, 2), same_padding(49, 10, 2), same_padding(48, 3, 1)
    ((0, 1), (4, 5), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@final
class SameConv2d(nn.Conv2d):
    """A convolution whose padding follows from the size of its input; `padding` of the base class is not used.

    Padding a stride-2 3x3 window by 1 on both sides instead shifts every window by one pixel: nets trained with "SAME"
    lose many points of accuracy that way.
    """

    def forward(self, input: Float[Tensor, "n c h w"]) -> Tensor:
        """Return [n, outputs, ceil(h / stride), ceil(w / stride)]."""
        height = same_padding(input.shape[2], self.kernel_size[0], self.stride[0])
        width = same_padding(input.shape[3], self.kernel_size[1], self.stride[1])
        even = height[0] == height[1] and width[0] == width[1]
        padded = input if even else F.pad(input, (*width, *height))
        padding = (height[0], width[0]) if even else (0, 0)
        return F.conv2d(padded, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
