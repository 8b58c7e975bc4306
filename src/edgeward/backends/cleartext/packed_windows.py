"""Windows over images in NumPy: patches for convolutions, pooling with one fixed order of summation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Shaped

Pair: TypeAlias = "Sequence[int]"


def patches(
    images: Shaped[np.ndarray, "n h w c"], kernel: Pair, stride: Pair, dilation: Pair
) -> Shaped[np.ndarray, "n oh ow kh kw c"]:
    """Return every window of padded channels-last images, as a view."""
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    windows = np.lib.stride_tricks.sliding_window_view(images, spans, axis=(1, 2))
    chosen = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return np.asarray(chosen.transpose(0, 1, 2, 4, 5, 3))


def padded(
    images: Shaped[np.ndarray, "n h w c"], padding: Pair, value: float | int = 0
) -> Shaped[np.ndarray, "n ph pw c"]:
    """Surround channels-last images with `value`."""
    if not any(padding):
        return images
    width = ((0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0))
    return np.pad(images, width, constant_values=value)


def shifted(x: Float[np.ndarray, "n c h w"], out: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> list[np.ndarray]:
    """Return one strided view [n, c, oh, ow] of padded images per position of the window, row by row."""
    views = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            stop = top + (out[0] - 1) * stride[0] + 1, left + (out[1] - 1) * stride[1] + 1
            views.append(x[:, :, top : stop[0] : stride[0], left : stop[1] : stride[1]])
    return views


def covered(extent: int, out: int, kernel: int, stride: int, padding: int, count_pad: bool) -> np.ndarray:
    """Return how many positions of each window count in a mean along one axis (torch's rule)."""
    start = np.arange(out) * stride - padding
    stop = np.minimum(start + kernel, extent + padding)
    if count_pad:
        return stop - start
    return np.minimum(stop, extent) - np.maximum(start, 0)
