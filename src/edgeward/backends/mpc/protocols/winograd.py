"""Winograd's convolution over a ring: fewer products for 3x3 windows, the same openings.

y = A^T [(G g G^T) . (B^T d B)] A for a tile d of t + 2 pixels a side and t^2 results. A and B hold integers, so both
transforms are linear over the ring and the parties do them alone; G holds fractions, so the weights' owner transforms
the filters in floating point, with the filters' axes last in the result, and encodes the outcome.

Source: Lavin and Gray, CVPR 2016, sections 4.1 and 4.2 (F(2x2, 3x3) and F(4x4, 3x3)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError

_Rows = tuple[tuple[int, ...], ...]

_INPUT: Final[dict[int, _Rows]] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
_OUTPUT: Final[dict[int, _Rows]] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
# Common denominators 2 and 24.
_FILTER: Final[dict[int, tuple[_Rows, int]]] = {
    2: (((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)), 2),
    4: (((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)), 24),
}

SPARE_BITS: Final[dict[int, int]] = {2: 2, 4: 11}
"""Fraction bits that encoded filters need beyond those of a direct convolution for the same bound on the rounding.

The worst result sums the filters' rounding errors with weights that add up to 36 (tile 2) or 15876 (tile 4) per pixel
and channel, where the direct convolution has 9.
"""

GROWTH: Final[dict[int, int]] = {
    tile: max(sum(map(abs, row)) for row in _INPUT[tile]) ** 2 * max(max(map(abs, row)) for row in _OUTPUT[tile]) ** 2
    for tile in (2, 4)
}
"""By how much the terms of a result may be larger than the largest input times the largest transformed weight."""


@final
@dataclass(frozen=True)
class Winograd(LinearMap):
    """x [n, C, H, W], w [(t + 2)^2, O, C] from `filters` -> [n, O, H', W']: a 3x3 convolution of stride 1, no groups.

    Guarantee: modulo 2^bits, and hence for every share, mask and wrap-around within, equal to the convolution with the
    filters that w stands for (tested on whole numbers). Cost: (t + 2)^2 / t^2 products per result and channel, 9
    without; an opened or dealt x is as long as without, and w is 16 / 9 or 4 times as long.
    """

    tile: int
    padding: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Refuse other tiles."""
        if self.tile not in _INPUT or min(self.padding) < 0:
            raise ConfigError(
                "no such tile", expected="2 or 4, padding from 0", came=f"{self.tile}, padding {self.padding}"
            )

    def output_shape(self, x: Shape, w: Shape) -> Shape:
        return (x[0], w[1], x[2] + 2 * self.padding[0] - 2, x[3] + 2 * self.padding[1] - 2)

    def apply(self, ring: Ring, x: Elements, w: Elements) -> Elements:
        n, out, high, wide = self.output_shape(x.shape, w.shape)
        rows, columns = -(-high // self.tile), -(-wide // self.tile)
        tiles = self._tiles(ring, x, rows, columns).reshape(len(w), x.shape[1], -1)
        products = ring.wrap(matmul(w, tiles, ring)).reshape(*[self.tile + 2] * 2, out, n, rows, columns)
        summed = [_combined(ring, _OUTPUT[self.tile], list(row)) for row in products]
        # [row in tile, column in tile, O, n, tile row, tile column] to [n, O, rows, columns]
        image = _combined(ring, _OUTPUT[self.tile], summed).transpose(3, 2, 4, 0, 5, 1)
        whole = image.reshape(n, out, rows * self.tile, columns * self.tile)
        return np.ascontiguousarray(whole[:, :, :high, :wide])

    def _tiles(self, ring: Ring, x: Elements, rows: int, columns: int) -> Elements:
        """Return B^T d B of every tile as [t + 2, t + 2, C, n, rows, columns]."""
        size, extent = self.tile, self.tile + 2
        far = [(parts - 1) * size + extent for parts in (rows, columns)]
        after = [far[i] - x.shape[2 + i] - self.padding[i] for i in (0, 1)]
        padded = np.pad(x, ((0, 0), (0, 0), (self.padding[0], after[0]), (self.padding[1], after[1])))
        padded = padded.transpose(1, 0, 2, 3)
        lines = _combined(ring, _INPUT[size], [padded[:, :, i::size][:, :, :rows] for i in range(extent)])
        cells = [[line[..., j::size][..., :columns] for j in range(extent)] for line in lines]
        return np.stack([_combined(ring, _INPUT[size], row) for row in cells])


def filters(weights: Float64[np.ndarray, "O C 3 3"], tile: int) -> Float64[np.ndarray, "a O C"]:
    """Return G g G^T of every filter, exact up to float64 rounding, as [(t + 2)^2, O, C]."""
    rows, denominator = _FILTER[tile]
    g = np.array(rows, np.float64)
    found: np.ndarray = np.einsum("pi,ocij,qj->pqoc", g, weights, g) / float(denominator**2)
    return np.ascontiguousarray(found.reshape(-1, *weights.shape[:2]))


def _combined(ring: Ring, rows: _Rows, parts: Sequence[Elements]) -> Elements:
    """Return one sum of `parts` per row of integers."""
    return np.stack([ring.wrap(_sum(ring, row, parts)) for row in rows])


def _sum(ring: Ring, row: tuple[int, ...], parts: Sequence[Elements]) -> Elements:
    total = np.zeros_like(parts[0])
    for factor, part in zip(row, parts, strict=True):
        if factor:
            total += part if factor == 1 else part * ring.constant(factor)
    return total
