"""What a secret tensor asks of the parties: the operations that need messages, alike for two and for three."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.protocols.linear_map import LinearMap, Shape
from edgeward.backends.mpc.ring import Elements, Ring


@final
@dataclass(frozen=True, eq=False)
class Value:
    """One party's shares of a value: one part among two parties, two among three.

    What is linear is done to every part by itself; public constants are added to the parts called first.
    """

    parts: tuple[Elements, ...]
    fraction: int

    @property
    def shape(self) -> Shape:
        """Return the public shape."""
        return tuple(self.parts[0].shape)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return int(self.parts[0].size)

    def each(self, change: Callable[[Elements], np.ndarray], fraction: int | None = None) -> Value:
        """Return the value with every part changed by a linear function, which must keep to the ring."""
        parts = tuple(np.ascontiguousarray(change(part)) for part in self.parts)
        return Value(parts, self.fraction if fraction is None else fraction)

    def __repr__(self) -> str:
        """Return the shape, never the parts."""
        return f"Value(shape={self.shape}, fraction={self.fraction})"


class Protocols(ABC):
    """The operations among the parties, as one party does them; every party calls the same ones in the same order."""

    ring: Ring
    number: int
    parties: int
    width: int
    """How many bits of a value are compared."""

    def __init__(self) -> None:
        """Start the count of operations, which labels their messages."""
        self._count = 0

    def label(self, operation: str) -> str:
        """Return the label of the next operation."""
        self._count += 1
        return f"{self._count}:{operation}"

    @property
    @abstractmethod
    def firsts(self) -> tuple[bool, ...]:
        """Return for every part whether public constants are added to it."""

    @abstractmethod
    def enter(self, x: Elements | None, shape: Shape, owner: int) -> Value:
        """Return shares of what party `owner` knows (None elsewhere), with the ring's fraction bits."""

    @abstractmethod
    def multiply(self, x: Value, y: Value) -> Value:
        """Return x y, which broadcast; fraction bits add up."""

    @abstractmethod
    def matrix_multiply(self, x: Value, y: Value) -> Value:
        """Return the product of matrices [m, k] and [k, n]; fraction bits add up."""

    @abstractmethod
    def bilinear(self, map_: LinearMap, x: Value, w: Value) -> Value:
        """Return the map's value; fraction bits add up."""

    @abstractmethod
    def truncate(self, x: Value, shift: int) -> Value:
        """Return x / 2^shift, rounded up or down, with as many fraction bits less."""

    @abstractmethod
    def relu(self, x: Value, shift: int) -> Value:
        """Return max(t, 0), t = x / 2^shift."""

    @abstractmethod
    def nonnegative(self, x: Value, shift: int) -> Value:
        """Return 1 where x / 2^shift >= 0 and 0 elsewhere, without fraction bits."""

    @abstractmethod
    def reveal(self, x: Value, to: int | None) -> Elements | None:
        """Return the elements at party `to` (None: at all) and None elsewhere."""

    @abstractmethod
    def curve(self, name: str, x: Value) -> Value:
        """Return the function called `name` of x (softmax: over the last of two axes)."""


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape to which all broadcast."""
    return tuple(np.broadcast_shapes(*shapes))
