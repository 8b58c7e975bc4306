"""The ring semantics in the clear: what every protocol's opened result must equal, bit for bit.

The one freedom is truncation: a protocol may return the floor or one unit more. Given the dealer's mask the unit is
determined, and `truncate` says which. Written from the definitions, without sharing any code with the protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.linear_map import LinearMap
from edgeward.backends.mpc.ring import Elements, Ring


@final
@dataclass(frozen=True)
class Simulator:
    """Operations on ring elements as one trusted computer would do them.

    Guarantee: none about secrecy; it is the oracle of the tests and of cost-free rehearsals.
    """

    ring: Ring

    def add(self, a: Elements, b: Elements) -> Elements:
        """Return a + b."""
        return self.ring.wrap(a + b)

    def multiply(self, a: Elements, b: Elements) -> Elements:
        """Return the elementwise product, with the fraction bits of both."""
        return self.ring.wrap(a * b)

    def linear(self, map_: LinearMap, x: Elements, w: Elements, bias: Elements | None = None) -> Elements:
        """Return map(x; w) plus the bias, which carries the fraction bits of the product."""
        out = map_.apply(self.ring, x, w)
        return out if bias is None else self.ring.wrap(out + map_.spread(bias, out.ndim))

    def truncate(self, z: Elements, shift: int, mask: Elements | None = None) -> Elements:
        """Return floor(z / 2^shift) of the signed value, or what the protocol returns with the dealer's `mask`."""
        floor = self.ring.signed(z) >> np.int64(shift)
        if mask is None or shift == 0:
            return self.ring.from_integers(floor)
        low = (1 << shift) - 1
        carry = (z.astype(np.uint64) & np.uint64(low)) + (mask.astype(np.uint64) & np.uint64(low)) > np.uint64(low)
        return self.ring.from_integers(floor + carry)

    def nonnegative(self, t: Elements, width: int) -> Elements:
        """Return 1 where the low `width` bits, as a signed number, are >= 0."""
        return (Ring(width, 0).signed(t) >= 0).astype(self.ring.dtype)

    def relu(self, t: Elements, width: int) -> Elements:
        """Return t where `nonnegative` says so, else 0."""
        return self.ring.wrap(t * self.nonnegative(t, width))

    def maximum(self, windows: Elements) -> Elements:
        """Return the largest signed value along the last axis."""
        return self.ring.from_integers(self.ring.signed(windows).max(axis=-1))
