"""Pooling of shared images: the largest or the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.protocols.window import Pair, Window
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared


def max_pool_demands(x: Shape, window: Window, layout: Layout) -> tuple[Relu, ...]:
    """Return the material of `max_pool`, one demand per level of its tournaments."""
    demands = []
    for part in tournaments(window, x):
        x, left = part.output_shape(x), part.size
        while left > 1:
            demands.append(Relu(int(np.prod(x)) * (left // 2), 0, layout))
            left -= left // 2
    return tuple(demands)


def max_pool(party: Party, x: Shared, window: Window, materials: Sequence[Material], label: str = "max_pool") -> Shared:
    """Return shares of the largest value of each window: max(u, v) = v + relu(u - v), in tournaments.

    Needs |x| < 2^(width-2), so that differences can be compared; padded places count as the least such value. Rows go
    before columns where that saves comparisons and takes no more levels: overlapping windows share their rows' largest.
    Guarantee: see `Party`. Cost: the sum over `max_pool_demands`; for a 3x3 window with stride 2 four levels and six
    comparisons per result (eight in one tournament).
    """
    ring, left = party.ring, list(materials)
    widths = {m.demand.layout.width for m in materials if isinstance(m.demand, Relu)}
    least = -(1 << (min(widths) - 2)) if widths and party.first else 0
    values = x.elements
    for part in tournaments(window, x.shape):
        values = part.gather(values, least, ring)
        while values.shape[-1] > 1:
            pairs = values.shape[-1] // 2
            u, v, rest = values[..., :pairs], values[..., pairs : 2 * pairs], values[..., 2 * pairs :]
            level = f"{label}/{len(materials) - len(left)}"
            above = relu(party, Shared(ring.wrap(u - v), x.fraction), left.pop(0), level)
            values = np.concatenate([ring.wrap(v + above.elements), rest], axis=-1)
        values = np.ascontiguousarray(values[..., 0])
    return Shared(values, x.fraction)


def tournaments(window: Window, x: Shape) -> tuple[Window, ...]:
    """Return the window as two sides where that saves comparisons and needs no more levels, else whole."""
    rows, columns = window.by_side()
    between = rows.output_shape(x)
    by_side = np.prod(between) * (rows.size - 1) + np.prod(columns.output_shape(between)) * (columns.size - 1)
    whole = np.prod(window.output_shape(x)) * (window.size - 1)
    saves = by_side < whole and _levels(rows) + _levels(columns) == _levels(window)
    return (rows, columns) if saves else (window,)


def _levels(window: Window) -> int:
    return (window.size - 1).bit_length()


def average_pool_demand(ring: Ring, x: Shape, window: Window) -> Truncation:
    """Return the material of `average_pool`."""
    return Truncation(int(np.prod(window.output_shape(x))), ring.fraction)


def average_pool(party: Party, x: Shared, window: Window, material: Material, label: str = "average_pool") -> Shared:
    """Return shares of each window's mean: the sum times round(2^f / counted places), truncated.

    Guarantee: see `Party`. Cost: one element per output, 1 round.
    """
    return truncate(party, scaled_sum(party.ring, x, window), material, label)


def scaled_sum(ring: Ring, x: Shared, window: Window, spare: int = 0) -> Shared:
    """Return shares of each window's mean with f + `spare` more fraction bits, without communication.

    Where a layer that truncates follows (an activation), hand it this and save a round. The factor
    round(2^(f + spare) / n) for n places has a relative error of at most n / 2^(f + spare + 1).
    """
    total = window.gather(x.elements, 0, ring).sum(axis=-1, dtype=ring.dtype)
    factors = reciprocals(ring, window.counted(x.shape), spare)
    return Shared(ring.wrap(total * factors), x.fraction + ring.fraction + spare)


def adaptive_sum(ring: Ring, x: Shared, output: Pair, spare: int = 0) -> Shared:
    """Return shares of the means over `output` near-equal windows a side, with f + `spare` more fraction bits.

    Window i of a side of n covers places floor(i n / o) to ceil((i + 1) n / o), as in PyTorch. No communication.
    """
    total, counts = x.elements, []
    for axis, parts in ((2, output[0]), (3, output[1])):
        extent = total.shape[axis]
        starts, stops = (np.arange(parts) * extent) // parts, -((-(np.arange(parts) + 1) * extent) // parts)
        sums = np.insert(np.cumsum(total, axis=axis, dtype=ring.dtype), 0, 0, axis=axis)
        total = ring.wrap(sums.take(stops, axis) - sums.take(starts, axis))
        counts.append(stops - starts)
    factors = reciprocals(ring, np.outer(*counts), spare)
    return Shared(ring.wrap(total * factors), x.fraction + ring.fraction + spare)


def reciprocals(ring: Ring, counts: np.ndarray, spare: int = 0) -> Elements:
    """Return round(2^(f + spare) / n) for every n as elements; a window of no places gives 0."""
    scaled = 2.0 ** (ring.fraction + spare) / np.maximum(counts, 1)
    return ring.from_integers(np.where(counts > 0, np.rint(scaled), 0.0).astype(np.int64))
