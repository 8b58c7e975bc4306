"""What a protocol asks of the dealer: named one-time values, some of them functions of the others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.ring import Ring

Values = Mapping[str, np.ndarray]


@final
@dataclass(frozen=True)
class Field:
    """One array of correlated randomness.

    `bits` > 0: elements modulo 2^bits, shared by sum; `bits` = 0: packed bytes, shared by exclusive or. A field that
    is not `dependent` is uniform, and both shares come out of the parties' seeds; a dependent one is a function of
    the others, and the second party's share is sent to it as a correction.

    `form` says who holds what: "shared" as above; "own" (uniform, bytes): each party has a value that the other does
    not know, and the dealer has both, stacked; "common" (dependent, bytes): both parties are sent the value itself.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    dependent: bool
    form: Literal["shared", "own", "common"] = "shared"

    @property
    def dtype(self) -> np.dtype:
        """Return the type of a share of the array."""
        return Ring(self.bits, 0).dtype if self.bits else np.dtype(np.uint8)

    @property
    def bytes(self) -> int:
        """Return the bytes of a share of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def sent(self, number: int) -> int:
        """Return the bytes that the dealer sends to party `number` for the array."""
        return self.bytes if self.form == "common" or (self.dependent and number == 1) else 0

    def combine(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the value of two shares; of an "own" field, both values."""
        if self.form == "own":
            return np.stack([first, second])
        return Ring(self.bits, 0).wrap(first + second) if self.bits else first ^ second

    def remainder(self, value: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return the share that makes `value` with the share `first`; of a "common" field, the value."""
        if self.form == "common":
            return value
        return Ring(self.bits, 0).wrap(value - first) if self.bits else value ^ first


class Demand(ABC):
    """A public description of one-time material; both parties and the dealer hold equal ones."""

    @abstractmethod
    def fields(self, ring: Ring) -> tuple[Field, ...]:
        """Return the arrays of the material, in the order in which seeds are expanded."""

    @abstractmethod
    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        """Return the dependent arrays for the uniform ones in `clear` (dealer only).

        `kept` holds the weight masks dealt before, by name.
        """

    @abstractmethod
    def cost(self, ring: Ring) -> Cost:
        """Return what each party sends when the protocol that uses this material runs."""

    def keep(self, clear: Values) -> dict[str, np.ndarray]:
        """Return what the dealer must remember for later demands; usually nothing."""
        return {}

    def offline_bytes(self, ring: Ring) -> int:
        """Return the bytes of corrections that the dealer sends: to the second party, but for common fields."""
        return sum(self.corrections(ring, number) for number in (0, 1))

    def corrections(self, ring: Ring, number: int) -> int:
        """Return the bytes of corrections that the dealer sends to party `number`."""
        return sum(field.sent(number) for field in self.fields(ring))
