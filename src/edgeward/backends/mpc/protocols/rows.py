"""Rows that are opened once under a mask and used twice: truncated and squared, then scaled by a factor per row.

Derivation: after the opening, t = M' - R' with M' public and R' = R - wrap 2^(l-f) (see `truncation`). Squares need
shares of R^2 and of R times the mask's top bit; a product with y, opened as y - b, needs R b and top b. The second
opening is one element per row, none per value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material, TupleReusedError
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.truncation import complete_mask, lift_top, mask_fields, open_masked
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class RowScaling(Demand):
    """Material to truncate [rows, columns] by `shift` > 0, to sum squares of rows if `squares`, to scale each row."""

    rows: int
    columns: int
    shift: int
    squares: bool

    @property
    def count(self) -> int:
        """Return the number of values."""
        return self.rows * self.columns

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        if not self.shift >= 1 or (self.squares and 2 * self.shift > ring.bits):
            raise ConfigError("no such rows", expected="a shift from 1 to half the ring's bits", came=f"{self}")
        small = max(self.shift, 2)
        fields = [*mask_fields(ring, self.count, self.shift), Field("factor", (self.rows,), ring.bits, False)]
        fields += [
            Field("high_factor", (self.count,), ring.bits, True),
            Field("top_factor", (self.count,), small, True),
        ]
        if self.squares:
            fields += [Field("square", (self.rows,), ring.bits, True), Field("top_high", (self.count,), small, True)]
        return tuple(fields)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        made = complete_mask(ring, clear["mask"], self.shift)
        high, top, factor = made["high"], made["top"], np.repeat(clear["factor"], self.columns)
        made |= {"high_factor": high * factor, "top_factor": top * factor.astype(top.dtype)}
        if self.squares:
            made["square"] = (high * high).reshape(self.rows, self.columns).sum(axis=1, dtype=ring.dtype)
            made["top_high"] = top * high.astype(top.dtype)
        return made

    def cost(self, ring: Ring) -> Cost:
        return Cost((self.count + self.rows) * ring.element_bytes, 2)


@final
class OpenedRows:
    """A party's view of rows opened under their masks; scale them once."""

    def __init__(
        self, party: Party, demand: RowScaling, arrays: Mapping[str, np.ndarray], z: Shared, label: str
    ) -> None:
        """Open the rows of `z`: one round, one element per value."""
        self._party, self._demand, self._arrays, self._label = party, demand, dict(arrays), label
        self._fraction = z.fraction - demand.shift
        self._public, self._top = open_masked(party, z, demand.shift, arrays, label)

    def values(self) -> Shared:
        """Return shares of the truncated rows."""
        share = -self._hidden("high", "top")
        share = share + self._public if self._party.first else share
        return Shared(self._shaped(share), self._fraction)

    def squares(self) -> Shared:
        """Return shares of the sum of squares of each row, with twice the fraction bits; local."""
        ring, public = self._party.ring, self._public
        inner = public * self._hidden("high", "top")
        share = -(inner + inner) - self._lifted(self._arrays["top_high"]) * ring.constant(2)
        share = share + public * public if self._party.first else share
        total = self._shaped(share).sum(axis=1, dtype=ring.dtype) + self._arrays["square"]
        return Shared(ring.wrap(total), 2 * self._fraction)

    def scaled(self, factor: Shared) -> Shared:
        """Return shares of every row times its factor, fraction bits added up: one round, one element per row."""
        ring, arrays, columns = self._party.ring, self._arrays, self._demand.columns
        if "factor" not in arrays:
            raise TupleReusedError("these rows were scaled before", fix="open the rows anew")
        mask = arrays.pop("factor")
        opened = self._party.open_elements(ring.wrap(factor.elements.reshape(-1) - mask), f"{self._label}/factor")
        delta, own = np.repeat(opened, columns), np.repeat(mask, columns)
        share = self._public * own - self._hidden("high", "top") * delta - self._hidden("high_factor", "top_factor")
        share = share + self._public * delta if self._party.first else share
        return Shared(self._shaped(share), self._fraction + factor.fraction)

    def _hidden(self, high: str, top: str) -> Elements:
        return self._party.ring.wrap(self._arrays[high] - self._lifted(self._arrays[top]))

    def _lifted(self, top: np.ndarray) -> Elements:
        return lift_top(self._party.ring, top, self._top, self._demand.shift)

    def _shaped(self, share: Elements) -> Elements:
        return self._party.ring.wrap(share).reshape(self._demand.rows, self._demand.columns)


def open_rows(party: Party, z: Shared, material: Material, label: str = "rows") -> OpenedRows:
    """Open rows [rows, columns] under their masks, truncated by the demand's shift (see `truncate`).

    Needs |z| < 2^(bits-2). Guarantee: see `Party`; the opened values and factors are masked by elements used once.
    Cost: one element per value, then one per row, a round each.
    """
    demand, arrays = material.take(RowScaling, z.elements.size)
    if z.shape != (demand.rows, demand.columns):
        raise ConfigError("material for other rows", expected=f"{demand}", came=str(z.shape))
    return OpenedRows(party, demand, arrays, z, label)
