"""Fixed-point numbers in a ring of integers modulo a power of two."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64, Num, UInt

from edgeward.core.errors import ConfigError, DataError

_PIECE = 1 << 20

Elements = UInt[np.ndarray, "..."]
"""Ring elements: an unsigned array of the ring's `dtype`, every value below 2^bits, at least one dimension."""


@final
@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits, read as two's complement with `fraction` binary places.

    Elements are kept in the smallest unsigned type that holds them; that type is also how one travels, so that an
    element costs `element_bytes` on the wire. Rings of a few bits exist so that a protocol can be tried on every input.

    >>> Ring(64, 16).encode(np.array([-1.5])), Ring(64, 16).decode(np.array([3 << 15], np.uint64))
    (array([18446744073709453312], dtype=uint64), array([1.5]))
    """

    bits: int = 64
    fraction: int = 16

    def __post_init__(self) -> None:
        """Refuse a ring that no element fits."""
        if not 2 <= self.bits <= 64 or not 0 <= self.fraction <= self.bits - 2:
            raise ConfigError(
                "no such ring", expected="2 <= bits <= 64 and 0 <= fraction <= bits - 2", came=f"{self}", fix="bits=64"
            )

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the elements."""
        return _holder(self.bits)

    @property
    def element_bytes(self) -> int:
        """Return the bytes one element takes on the wire."""
        return self.dtype.itemsize

    def wrap(self, x: Elements) -> Elements:
        """Return `x` modulo 2^bits in the ring's type."""
        narrow = x.astype(self.dtype, copy=False)
        return narrow if self.bits == 8 * self.element_bytes else narrow & self.dtype.type((1 << self.bits) - 1)

    def constant(self, value: int) -> np.generic:
        """Return one integer as an element."""
        element: np.generic = self.dtype.type(value % (1 << self.bits))
        return element

    def from_integers(self, x: Num[np.ndarray, "..."]) -> Elements:
        """Return integers of any type as elements, modulo 2^bits."""
        return self.wrap(np.atleast_1d(x).astype(np.int64, copy=False).view(np.uint64))

    def signed(self, x: Elements) -> Int64[np.ndarray, "..."]:
        """Return elements as the integers in [-2^(bits-1), 2^(bits-1)) they stand for."""
        unused = np.int64(64 - self.bits)
        return np.asarray((x.astype(np.uint64).view(np.int64) << unused) >> unused)

    def encode(self, x: Num[np.ndarray, "..."]) -> Elements:
        """Return real numbers as fixed point: round(x 2^fraction), halves to even.

        Raises `DataError` where a number is not finite or leaves the ring.
        """
        numbers = np.atleast_1d(x)
        flat, outside = np.ascontiguousarray(numbers).reshape(-1), 0
        elements = np.empty(flat.size, self.dtype)
        # In pieces: a large model's tensor would otherwise be in memory several times over.
        for start in range(0, flat.size, _PIECE):
            scaled = np.rint(flat[start : start + _PIECE].astype(np.float64) * 2.0**self.fraction)
            wrong = ~(np.abs(scaled) < 2.0 ** (self.bits - 1))
            outside += int(wrong.sum())
            elements[start : start + _PIECE] = self.from_integers(np.where(wrong, 0.0, scaled).astype(np.int64))
        if outside:
            raise DataError(
                f"{outside} of {flat.size} numbers do not fit the ring",
                expected=f"finite and below 2^{self.bits - 1 - self.fraction} in size",
                came="a larger or non-finite one",
                fix="scale the input, or take fewer fraction bits",
            )
        return elements.reshape(numbers.shape)

    def decode(self, x: Elements, fraction: int | None = None) -> Float64[np.ndarray, "..."]:
        """Return the real numbers that elements stand for, with the ring's fraction bits unless others are given."""
        return self.signed(x) / 2.0 ** (self.fraction if fraction is None else fraction)


@functools.cache
def _holder(bits: int) -> np.dtype:
    return np.dtype(next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if bits <= 8 * kind().itemsize))
