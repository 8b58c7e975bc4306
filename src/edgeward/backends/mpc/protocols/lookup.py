"""Any smooth function of a masked value in one round: the dealer's table is re-centred at the mask.

Derivation: with m = t + r public and h the length of a segment, the segments of m and r differ by a number p such that
t = p h + v - w, with v the public place of m in its segment and w the place of r. The polynomial for p, as a polynomial
in v, has coefficients that depend on m's segment and on r alone: the dealer shares them for every segment that m may
lie in, and the parties add up their shares times public powers of v. No carry is needed, because every piece is good
on both sides of its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.curve import Curve, combined, pieces, places, shifted
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class Lookup(Demand):
    """Material for `count` values of a curve over the ring."""

    count: int
    curve: Curve

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        if self.curve.bits != ring.bits or self.curve.domain_bits > ring.bits:
            raise ConfigError("a curve of another ring", expected=f"{ring.bits} bits", came=f"{self.curve}")
        return (Field("mask", (self.count,), ring.bits, False), table_field(self.curve, self.count))

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"table": deal_table(self.curve, clear["mask"])}

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * ring.element_bytes, 1)


def table_field(curve: Curve, count: int) -> Field:
    """Return the table of `count` masked values: [segments, powers, count]."""
    return Field("table", (1 << curve.segments, curve.degree + 1, count), curve.bits, True)


def deal_table(curve: Curve, mask: Elements) -> Elements:
    """Return the coefficients, for every segment that the opened value may lie in (dealer only)."""
    ring, slots = Ring(curve.bits, 0), 1 << curve.segments
    segment, place = places(curve, mask)
    table = np.empty((slots, curve.degree + 1, len(mask)), ring.dtype)
    for opened in range(slots):
        rows = pieces(curve)[(np.uint64(opened) - segment) & np.uint64(slots - 1)]
        table[opened] = ring.from_integers(shifted(curve, np.ascontiguousarray(rows.T), place))
    return table


def look_up(curve: Curve, public: Elements, table: Elements) -> Elements:
    """Return shares of the curve at (public - mask), with its scale, modulo 2^bits; local."""
    segment, place = places(curve, public)
    # The powers' axis comes last behind two index arrays.
    terms = table[segment.astype(np.intp), :, np.arange(len(segment))].T
    return combined(curve, terms, place)


def lookup(party: Party, x: Shared, material: Material, label: str = "lookup") -> Shared:
    """Return shares of f(x) with the curve's `scale` fraction bits.

    Needs x within the curve's domain; a value outside gives that of a number within, without notice. Error: that of
    the polynomials (`worst_error`) and rounding, about (degree + 1) 2^-power_bits. Guarantee: see `Party`; the one
    opened value is masked by a uniform element used once. Cost: one element each, 1 round; offline `table_bytes` each.
    """
    demand, arrays = material.take(Lookup, x.elements.size)
    if x.fraction != demand.curve.fraction:
        raise ConfigError("a curve of other numbers", expected=f"{demand.curve.fraction} places", came=repr(x))
    m = party.open_elements(party.ring.wrap(x.elements.reshape(-1) + arrays["mask"]), label)
    return Shared(look_up(demand.curve, m, arrays["table"]).reshape(x.shape), demand.curve.scale)
