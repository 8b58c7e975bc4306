"""Ring products: the native kernels for rings of 32 and 64 bits' types, NumPy for toy rings."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.native import ring as native

Pair = tuple[int, int]


def matmul(a: Elements, b: Elements, ring: Ring, onto: Elements | None = None) -> Elements:
    """Return a b modulo 2^bits, for a [..., m, k] and b [..., k, n], added to `onto` in place where that is given.

    Cost: m k n multiply-adds.
    """
    if ring.element_bytes >= 4:
        return ring.wrap(native.matmul(a, b, 8 * ring.element_bytes, onto=onto))
    return ring.wrap(a @ b if onto is None else np.add(a @ b, onto, out=onto))


def conv2d(x: Elements, w: Elements, stride: Pair, padding: Pair, dilation: Pair, groups: int, ring: Ring) -> Elements:
    """Return the convolution modulo 2^bits: x [n, C, H, W], w [O, C / groups, kh, kw], zero padding on both sides."""
    if ring.element_bytes >= 4:
        return ring.wrap(native.conv2d(x, w, stride, padding, dilation, groups, 8 * ring.element_bytes))
    (n, c), (o, _, kh, kw) = x.shape[:2], w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    reach = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    h, v = windows.shape[2:4]
    rows = windows.reshape(n, groups, c // groups, h, v, kh, kw).transpose(1, 0, 3, 4, 2, 5, 6)
    rows = np.ascontiguousarray(rows).reshape(groups, n * h * v, -1)
    out = ring.wrap(rows @ w.reshape(groups, o // groups, -1).transpose(0, 2, 1))
    return np.ascontiguousarray(out.reshape(groups, n, h, v, o // groups).transpose(1, 0, 4, 2, 3)).reshape(n, o, h, v)
