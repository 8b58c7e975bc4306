"""Curves, exponentials and normalisation in the clear: the integers that their protocols must reproduce.

Given the dealer's masks every result is determined, bit for bit; without masks, as with masks of zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum
from edgeward.backends.mpc.protocols.curve import Curve, combined, pieces, places, shifted
from edgeward.backends.mpc.protocols.curved import Curved
from edgeward.backends.mpc.protocols.exponential import Exponential, public_factor
from edgeward.backends.mpc.protocols.inverse import Inverse
from edgeward.backends.mpc.protocols.iterations import Arithmetic
from edgeward.backends.mpc.protocols.normalization import Normalization
from edgeward.backends.mpc.protocols.rows import RowScaling
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.protocols.standardize import Standardization, centred
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator


def clear_lookup(curve: Curve, t: Elements, mask: Elements | None = None) -> Elements:
    """Return the curve at `t`, with its scale, as an element modulo 2^bits: what `lookup` returns for this mask."""
    flat = t.reshape(-1).astype(np.uint64)
    hidden = np.zeros_like(flat) if mask is None else mask.reshape(-1).astype(np.uint64)
    opened, masked = places(curve, flat + hidden), places(curve, hidden)
    piece = (opened[0] - masked[0]) & np.uint64((1 << curve.segments) - 1)
    rows = np.ascontiguousarray(pieces(curve)[piece].T)
    terms = Ring(curve.bits, 0).from_integers(shifted(curve, rows, masked[1]))
    return combined(curve, terms, opened[1]).reshape(t.shape)


def clear_curved(simulator: Simulator, demand: Curved, z: Elements, masks: Elements | None = None) -> Elements:
    """Return the activation of `z` truncated, with the fraction bits of the curve."""
    ring, tailed, small = simulator.ring, demand.tailed, Ring(demand.tailed.curve.bits, 0)
    mask, own = (None, None) if masks is None else (masks[0].reshape(z.shape), masks[1].reshape(z.shape))
    t = simulator.truncate(z, demand.shift, mask)
    hidden = None if mask is None else mask >> mask.dtype.type(demand.shift)
    value = clear_lookup(tailed.curve, t, hidden)
    own = None if own is None else small.wrap(own)
    value = small.signed(Simulator(small).truncate(value, demand.drop, own))
    number = ring.signed(t)
    over = number if tailed.above is None else np.full_like(number, tailed.above)
    result = np.where(number < tailed.low, tailed.below, np.where(number < tailed.high, value + tailed.below, over))
    return ring.from_integers(result)


def clear_exponential(ring: Ring, demand: Exponential, t: Elements, mask: Elements | None = None) -> Elements:
    """Return exp of `t` modulo 2^domain_bits, with `scale` + `power` fraction bits."""
    domain, place = np.uint64((1 << demand.domain_bits) - 1), np.uint64(demand.place_bits)
    flat = t.reshape(-1).astype(np.uint64) & domain
    hidden = np.zeros_like(flat) if mask is None else mask.reshape(-1).astype(np.uint64) & domain
    opened = (flat + hidden) & domain
    piece = ((opened >> place) - (hidden >> place)) & np.uint64((1 << demand.segments) - 1)
    factor = demand.rounded(demand.segment_factors()[piece], demand.own_factor(hidden))
    return ring.wrap(ring.from_integers(factor) * public_factor(demand, opened).astype(ring.dtype)).reshape(t.shape)


def clear_below_maximum(
    simulator: Simulator, demand: CoarseMaximum, z: Elements, mask: Elements | None = None
) -> Elements:
    """Return t - c modulo 2^domain_bits, c the largest of each row in steps: the floor, or one step more."""
    ring, small = simulator.ring, Ring(demand.domain_bits, 0)
    mask = None if mask is None else mask.reshape(z.shape)
    t = ring.signed(simulator.truncate(z, demand.shift, mask))
    low = np.int64((1 << demand.step_bits) - 1)
    place = np.zeros_like(t) if mask is None else (mask >> mask.dtype.type(demand.shift)).astype(np.int64) & low
    # The opened value's place is below the mask's: one step more.
    step = (t >> np.int64(demand.step_bits)) + ((t & low) + place > low)
    return small.from_integers(t - (step.max(axis=1, keepdims=True) << np.int64(demand.step_bits)))


def clear_normalize(ring: Ring, demand: Normalization, z: Elements) -> tuple[Elements, np.ndarray]:
    """Return z moved until its leading bit stands at `last`, and the places of the leading bits less `first`.

    A value outside the range counts as the nearest place, and is moved as far.
    """
    leading = np.array([int(value).bit_length() - 1 - demand.first for value in z.reshape(-1)], np.int64)
    places = leading.clip(0, demand.bounds).reshape(z.shape)
    return ring.wrap(z << (demand.bounds - places).astype(z.dtype)), places


def clear_inverse(simulator: Simulator, what: Inverse, z: Elements, masks: Iterator[Elements | None]) -> Elements:
    """Return the function of z > 0 with `result_fraction` fraction bits; masks in the order of `what.demands`."""
    ring = simulator.ring
    next(masks)
    moved, places = clear_normalize(ring, Normalization(what.count, what.first, what.last), z)
    long = clear_lookup(what.curve(ring), moved, next(masks))
    weight = ring.from_integers(np.array(what.weights(), np.int64)[places])
    if what.function == "logarithm":
        long = ring.wrap(long + weight)
    else:
        next(masks)
        long = simulator.multiply(long, weight)
    mask = next(masks)
    return simulator.truncate(long, what.drop, None if mask is None else mask.reshape(long.shape))


def clear_softmax(simulator: Simulator, what: Softmax, z: Elements, masks: Iterator[Elements | None]) -> Elements:
    """Return softmax of rows with `what.result_fraction` fraction bits; masks in the order of `what.demands`."""
    ring = simulator.ring
    first, second, third, *_ = what.demands(ring)
    if not (isinstance(first, CoarseMaximum) and isinstance(second, Exponential) and isinstance(third, RowScaling)):
        raise TypeError("a softmax is a maximum, exponentials and rows")
    lower = clear_below_maximum(simulator, first, z, next(masks))
    long = clear_exponential(ring, second, lower, next(masks))
    mask = next(masks)
    terms = simulator.truncate(long, third.shift, None if mask is None else mask.reshape(long.shape))
    total = clear_inverse(simulator, what.reciprocal, ring.wrap(terms.sum(axis=1, dtype=ring.dtype)), masks)
    return ring.wrap(terms * total[:, None])


def clear_standardize(
    simulator: Simulator, what: Standardization, x: Elements, masks: Iterator[Elements | None]
) -> Elements:
    """Return rows less their mean over their deviation, with `what.result_fraction` fraction bits."""
    ring, mask = simulator.ring, next(masks)
    centre = centred(ring, Shared(x, what.fraction), what)
    t = simulator.truncate(centre.elements, what.shift, None if mask is None else mask.reshape(x.shape))
    squares = ring.wrap((t * t).sum(axis=1, dtype=ring.dtype) + ring.constant(what.floor))
    return ring.wrap(t * clear_inverse(simulator, what.inverse_root, squares, masks)[:, None])


@final
class ClearArithmetic(Arithmetic):
    """Iterations on values in the clear; masks in the order of the demands."""

    def __init__(self, simulator: Simulator, masks: Iterator[Elements | None]) -> None:
        """Take the masks as they are dealt."""
        super().__init__(simulator.ring, True)
        self._simulator, self._masks = simulator, masks

    def multiply(self, x: Elements, y: Elements, shift: int) -> Elements:
        """Return x y 2^-shift, the floor or one unit more."""
        next(self._masks)
        return self.halve(self._simulator.multiply(x, y), shift)

    def halve(self, x: Elements, shift: int) -> Elements:
        """Return x 2^-shift, the floor or one unit more."""
        mask = next(self._masks)
        return self._simulator.truncate(x, shift, None if mask is None else mask.reshape(x.shape))
