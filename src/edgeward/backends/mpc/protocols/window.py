"""The windows of a pool: which elements each reads, and how many of them count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64
from numpy.lib.stride_tricks import sliding_window_view

from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.ring import Elements, Ring

Pair = tuple[int, int]


@final
@dataclass(frozen=True)
class Window:
    """Kernel, stride, padding and dilation of a pool over the last two axes of [n, C, H, W].

    `after` is what windows reach beyond the padding at the far sides (ceil mode); `counts_padding` says whether padded
    places count in a mean. Those of `after` never do.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    after: Pair = (0, 0)
    counts_padding: bool = True

    @property
    def size(self) -> int:
        """Return the places of one window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def reach(self) -> Pair:
        """Return the extent of one window in the image."""
        (h, w), (d, e) = self.kernel, self.dilation
        return d * (h - 1) + 1, e * (w - 1) + 1

    def output_shape(self, x: Shape) -> Shape:
        """Return the shape of the pooled images."""
        return (*x[:2], *(self._covered(x, i) // self.stride[i] + 1 for i in (0, 1)))

    def grown(self, x: Shape, output: Pair) -> Window:
        """Return the window whose pooled images have the sides `output`, by reaching beyond the far sides."""
        after = [max(0, (output[i] - 1) * self.stride[i] - self._covered(x, i)) for i in (0, 1)]
        return Window(self.kernel, self.stride, self.padding, self.dilation, (after[0], after[1]), self.counts_padding)

    def gather(self, x: Elements, fill: int, ring: Ring) -> Elements:
        """Return [n, C, H', W', kernel size]; places outside the image hold `fill`."""
        return self._windows(np.pad(x, self._edges(), constant_values=ring.constant(fill)))

    def counted(self, x: Shape) -> Int64[np.ndarray, "h w"]:
        """Return how many places of each window count in a mean, for images of shape `x`."""
        inner = np.ones((1, 1, x[2], x[3]), np.int64)
        if self.counts_padding:
            inner = np.pad(inner, ((0, 0), (0, 0), (self.padding[0],) * 2, (self.padding[1],) * 2), constant_values=1)
            return np.asarray(self._windows(np.pad(inner, self._edges(padding=False))).sum(-1)[0, 0])
        return np.asarray(self._windows(np.pad(inner, self._edges())).sum(-1)[0, 0])

    def by_side(self) -> tuple[Window, Window]:
        """Return a pool along the rows and one along the columns: the largest of the largest is the largest."""
        rows = Window(
            (1, self.kernel[1]), (1, self.stride[1]), (0, self.padding[1]), (1, self.dilation[1]), (0, self.after[1])
        )
        columns = Window(
            (self.kernel[0], 1), (self.stride[0], 1), (self.padding[0], 0), (self.dilation[0], 1), (self.after[0], 0)
        )
        return rows, columns

    def _covered(self, x: Shape, side: int) -> int:
        return x[2 + side] + 2 * self.padding[side] + self.after[side] - self.reach[side]

    def _edges(self, padding: bool = True) -> tuple[Pair, ...]:
        sides = [((p, p + a) if padding else (0, a)) for p, a in zip(self.padding, self.after, strict=True)]
        return ((0, 0), (0, 0), *sides)

    def _windows(self, padded: np.ndarray) -> np.ndarray:
        windows = sliding_window_view(padded, self.reach, axis=(2, 3))[:, :, :: self.stride[0], :: self.stride[1]]
        windows = windows[..., :: self.dilation[0], :: self.dilation[1]]
        return np.ascontiguousarray(windows).reshape(*windows.shape[:4], -1)
