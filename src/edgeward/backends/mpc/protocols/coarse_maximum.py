"""The largest of any number of values to within one step, in two rounds: what an exponential needs to stay in range.

Derivation: t = p h + v - w as in `lookup`, so p is the floor of t / h or one more. The dealer shares which segment the
mask lies in as a row with a single one, modulo a small power of two; the opened value turns that row into the one of
p. Suffix sums over all values count how many have p >= v. The counts are opened under masks, and a table of shared
bits tells which are not zero; their sum is the largest p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.truncation import open_masked
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class CoarseMaximum(Demand):
    """Material for the largest of each row of [rows, columns], truncated by `shift` first, in steps of 2^step_bits.

    Values must lie in [-2^(bins-1), 2^(bins-1) - 1) steps. Results are given modulo 2^domain_bits.
    """

    rows: int
    columns: int
    shift: int
    step_bits: int
    bins: int
    domain_bits: int

    @property
    def count(self) -> int:
        """Return the number of values."""
        return self.rows * self.columns

    @property
    def counter(self) -> Ring:
        """Return the ring of the counts."""
        return Ring(max(2, self.columns.bit_length()), 0)

    @property
    def digits(self) -> Ring:
        """Return the ring of the largest step."""
        return Ring(self.domain_bits - self.step_bits, 0)

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        room = ring.bits - self.shift
        if not (1 <= self.bins <= 8 and self.step_bits + self.bins < self.domain_bits <= room and self.step_bits >= 1):
            raise ConfigError(
                "no such maximum", expected=f"steps and bins within a domain of {room} bits", came=f"{self}"
            )
        if self.columns >= 1 << 16:
            raise ConfigError("too many values in a row", expected="below 2^16", came=str(self.columns))
        slots, counter = 1 << self.bins, self.counter.bits
        return (
            Field("mask", (self.count,), ring.bits, False),
            Field("low", (self.count,), self.domain_bits, True),
            Field("place", (slots, self.count), counter, True),
            Field("cover", (slots - 1, self.rows), counter, False),
            Field("positive", (1 << counter, slots - 1, self.rows), self.digits.bits, True),
        )

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        high, small = clear["mask"] >> clear["mask"].dtype.type(self.shift), Ring(self.domain_bits, 0)
        slots, sizes = np.arange(1 << self.bins), 1 << self.counter.bits
        place = (self.segment(high)[None] == slots[:, None]).astype(self.counter.dtype)
        zero = np.arange(sizes)[:, None, None] == clear["cover"][None]
        return {"low": small.wrap(high), "place": place, "positive": (~zero).astype(self.digits.dtype)}

    def cost(self, ring: Ring) -> Cost:
        counts = ((1 << self.bins) - 1) * self.rows * self.counter.element_bytes
        return Cost(self.count * ring.element_bytes + counts, 2)

    def segment(self, t: Elements) -> np.ndarray:
        """Return the number of the step of values or masks, modulo 2^bins."""
        wide = t.astype(np.uint64) >> np.uint64(self.step_bits)
        return np.asarray((wide & np.uint64((1 << self.bins) - 1)).astype(np.intp))


def below_maximum(party: Party, z: Shared, material: Material, label: str = "coarse_max") -> Elements:
    """Return shares, modulo 2^domain_bits, of t - c for the rows of `z`, c the largest value to within a step.

    The largest of t - c lies between -2^step_bits and 2^step_bits. Values outside the demand's range give wrong results
    without notice. Guarantee: see `Party`; opened values and counts are masked by elements used once. Cost:
    `CoarseMaximum.cost`, 2 rounds.
    """
    demand, arrays = material.take(CoarseMaximum, z.elements.size)
    small, digits, counter = Ring(demand.domain_bits, 0), demand.digits, demand.counter
    public, _ = open_masked(party, z, demand.shift, arrays, label)
    slots = 1 << demand.bins
    steps = np.arange(-(slots // 2), slots // 2)
    # Row j: the value's step is number steps[j].
    where = (demand.segment(public)[None] - steps[:, None]) % slots
    ones = np.take_along_axis(arrays["place"], where, axis=0).reshape(slots, demand.rows, demand.columns)
    counts = ones.sum(axis=2, dtype=counter.dtype)[::-1].cumsum(axis=0, dtype=counter.dtype)[::-1][1:]
    m = party.open_in(counter, counter.wrap(counts + arrays["cover"]), f"{label}/counts").astype(np.intp)
    bits = np.take_along_axis(arrays["positive"], m[None], axis=0)[0]
    largest = bits.sum(axis=0, dtype=digits.dtype)
    if party.first:
        largest = largest - digits.constant(slots // 2)
    lifted = digits.wrap(largest).astype(small.dtype) * small.constant(1 << demand.step_bits)
    t = -arrays["low"] + small.wrap(public) if party.first else -arrays["low"]
    return small.wrap(t.reshape(demand.rows, demand.columns) - lifted[:, None])
