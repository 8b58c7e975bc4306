"""Pooling of shared images: the largest or the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared


@final
@dataclass(frozen=True)
class Window:
    """Kernel, stride and padding of a pool over the last two axes of [n, C, H, W]."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def output_shape(self, x: Shape) -> Shape:
        """Return the shape of the pooled images."""
        sides = [(x[2 + i] + 2 * self.padding[i] - self.kernel[i]) // self.stride[i] + 1 for i in (0, 1)]
        return (*x[:2], *sides)

    def gather(self, x: Elements, fill: int, ring: Ring) -> Elements:
        """Return [n, C, H', W', kernel size]; padded places hold `fill`."""
        edges = ((0, 0), (0, 0), (self.padding[0],) * 2, (self.padding[1],) * 2)
        padded = np.pad(x, edges, constant_values=ring.constant(fill))
        windows = sliding_window_view(padded, self.kernel, axis=(2, 3))[:, :, :: self.stride[0], :: self.stride[1]]
        return np.ascontiguousarray(windows).reshape(*windows.shape[:4], -1)


def max_pool_demands(x: Shape, window: Window, layout: Layout) -> tuple[Relu, ...]:
    """Return the material of `max_pool`, one demand per level of the tournament."""
    outputs = int(np.prod(window.output_shape(x)))
    demands, left = [], window.kernel[0] * window.kernel[1]
    while left > 1:
        demands.append(Relu(outputs * (left // 2), 0, layout))
        left -= left // 2
    return tuple(demands)


def max_pool(party: Party, x: Shared, window: Window, materials: Sequence[Material], label: str = "max_pool") -> Shared:
    """Return shares of the largest value of each window: max(u, v) = v + relu(u - v), in a tournament.

    Needs |x| < 2^(width-2), so that differences can be compared; padded places count as the least such value.
    Guarantee: see `Party`. Cost: the sum over `max_pool_demands`, ceil(log2(kernel size)) levels.
    """
    ring = party.ring
    widths = {m.demand.layout.width for m in materials if isinstance(m.demand, Relu)}
    least = -(1 << (min(widths) - 2)) if widths and party.first else 0
    left = window.gather(x.elements, least, ring)
    for level, material in enumerate(materials):
        pairs = left.shape[-1] // 2
        u, v, rest = left[..., :pairs], left[..., pairs : 2 * pairs], left[..., 2 * pairs :]
        above = relu(party, Shared(ring.wrap(u - v), x.fraction), material, f"{label}/{level}")
        left = np.concatenate([ring.wrap(v + above.elements), rest], axis=-1)
    return Shared(np.ascontiguousarray(left[..., 0]), x.fraction)


def average_pool_demand(ring: Ring, x: Shape, window: Window) -> Truncation:
    """Return the material of `average_pool`."""
    return Truncation(int(np.prod(window.output_shape(x))), ring.fraction)


def average_pool(party: Party, x: Shared, window: Window, material: Material, label: str = "average_pool") -> Shared:
    """Return shares of each window's mean (padding counts as zeros): the sum times round(2^f / size), truncated.

    Guarantee: see `Party`. Cost: one element per output, 1 round.
    """
    return truncate(party, scaled_sum(party.ring, x, window), material, label)


def scaled_sum(ring: Ring, x: Shared, window: Window) -> Shared:
    """Return shares of each window's mean with f more fraction bits, without communication.

    Where a layer that truncates follows (an activation), hand it this and save a round.
    """
    size = window.kernel[0] * window.kernel[1]
    factor = ring.constant(round(2**ring.fraction / size))
    total = window.gather(x.elements, 0, ring).sum(axis=-1, dtype=ring.dtype)
    return Shared(ring.wrap(total * factor), x.fraction + ring.fraction)
