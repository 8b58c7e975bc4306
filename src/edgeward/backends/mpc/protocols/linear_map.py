"""Maps that are linear in the input and in the weights: dense layers and convolutions over a ring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.products import conv2d, matmul
from edgeward.backends.mpc.ring import Elements, Ring

Shape = tuple[int, ...]


class LinearMap(ABC):
    """L(x; w), linear in each of both: L(x; w) = L(x - a; w - b) + L(a; w - b) + L(x - a; b) + L(a; b)."""

    @abstractmethod
    def output_shape(self, x: Shape, w: Shape) -> Shape:
        """Return the shape of the result."""

    @abstractmethod
    def apply(self, ring: Ring, x: Elements, w: Elements) -> Elements:
        """Return L(x; w) modulo 2^bits."""

    def spread(self, bias: Elements, dimensions: int) -> Elements:
        """Return one bias per output channel (axis 1), ready to be added to a result of that many dimensions."""
        return bias.reshape((1, -1) + (1,) * (dimensions - 2))


@final
@dataclass(frozen=True)
class Dense(LinearMap):
    """x [n, k], w [o, k] -> x w^T [n, o]."""

    def output_shape(self, x: Shape, w: Shape) -> Shape:
        return (x[0], w[0])

    def apply(self, ring: Ring, x: Elements, w: Elements) -> Elements:
        return ring.wrap(matmul(x, w.T, ring))


@final
@dataclass(frozen=True)
class Convolution(LinearMap):
    """x [n, C, H, W], w [O, C / groups, kh, kw] -> [n, O, H', W'], zero padding on both sides."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_shape(self, x: Shape, w: Shape) -> Shape:
        sides = [
            (x[2 + i] + 2 * self.padding[i] - self.dilation[i] * (w[2 + i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        ]
        return (x[0], w[0], *sides)

    def apply(self, ring: Ring, x: Elements, w: Elements) -> Elements:
        return ring.wrap(conv2d(x, w, self.stride, self.padding, self.dilation, self.groups, ring))
