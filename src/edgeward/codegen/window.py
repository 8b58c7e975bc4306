"""The sliding window of convolutions and pools: attributes read in one place, output sizes derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from edgeward.codegen.integer import IntegerGraph, IntegerNode


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return (rows, columns) of an attribute given as one number or as two.

    >>> pair(2), pair((1, 3))
    ((2, 2), (1, 3))
    """
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return int(rows), int(columns)


def image(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a value's shape as (H, W, C); a flat value is one pixel."""
    height, width, channels = shape if len(shape) == 3 else (1, 1, int(shape[0]))
    return int(height), int(width), int(channels)


@final
@dataclass(frozen=True)
class Window:
    """A kernel that moves over a padded image, each pair as (rows, columns); padding is (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the output."""
        top, left, bottom, right = self.padding
        padded = height + top + bottom, width + left + right
        spans = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        rows, columns = ((size - (kernel - 1) * dilation - 1) // stride + 1 for size, kernel, stride, dilation in spans)
        return rows, columns


def window_of(graph: IntegerGraph, node: IntegerNode) -> Window:
    """Return the window of a convolution or a pool."""
    attributes = node.attributes
    if node.operator in ("conv2d", "depthwise"):
        weight = graph.tensors[node.tensors["weight"]].shape
        kernel = weight[1:3] if node.operator == "conv2d" else weight[:2]
    else:
        kernel = pair(attributes["kernel"])
    top, left, bottom, right = attributes["padding"]
    return Window(
        kernel=(int(kernel[0]), int(kernel[1])),
        stride=pair(attributes["stride"]),
        padding=(int(top), int(left), int(bottom), int(right)),
        dilation=pair(attributes.get("dilation", 1)),
    )
