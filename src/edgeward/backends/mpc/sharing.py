"""Additive and boolean shares of values that neither party knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.planes import Planes
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretRandomness


@final
@dataclass(frozen=True, eq=False)
class Shared:
    """One party's additive share of ring elements: the two parties' shares sum to the value modulo 2^bits.

    `fraction` is public: the fraction bits the value carries now (twice the ring's after a product).

    Guarantee: one share alone is uniform and independent of the value (proved, when made by `share` or by a protocol
    of this room). No text made of this object shows the share.
    """

    elements: Elements
    fraction: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the public shape of the value."""
        return tuple(self.elements.shape)

    def __repr__(self) -> str:
        """Return the shape, never the share."""
        return f"Shared(shape={self.shape}, fraction={self.fraction})"


@final
@dataclass(frozen=True, eq=False)
class SharedBits:
    """One party's boolean share of bits in planes: the exclusive or of both parties' planes is the value."""

    planes: Planes
    count: int

    def __repr__(self) -> str:
        """Return the sizes, never the share."""
        return f"SharedBits({len(self.planes)} planes of {self.count} bits)"


def share(ring: Ring, x: Elements, fraction: int | None = None) -> tuple[Shared, Shared]:
    """Split elements into the two parties' shares, with masks from the operating system's generator.

    Whoever calls this knows `x`: it is the input of the data's owner, who keeps one share and sends the other.
    """
    mask = np.frombuffer(SecretRandomness().bytes(x.size * ring.element_bytes), ring.dtype).reshape(x.shape)
    places = ring.fraction if fraction is None else fraction
    return Shared(ring.wrap(mask), places), Shared(ring.wrap(x - mask), places)


def reconstruct(ring: Ring, first: Shared, second: Shared) -> Elements:
    """Return the value of two shares."""
    if first.shape != second.shape or first.fraction != second.fraction:
        raise ConfigError("shares of different values", expected=repr(first), came=repr(second))
    return ring.wrap(first.elements + second.elements)


def add(ring: Ring, a: Shared, b: Shared) -> Shared:
    """Return the share of a + b, without communication."""
    return Shared(ring.wrap(a.elements + b.elements), _same(a, b))


def subtract(ring: Ring, a: Shared, b: Shared) -> Shared:
    """Return the share of a - b, without communication."""
    return Shared(ring.wrap(a.elements - b.elements), _same(a, b))


def _same(a: Shared, b: Shared) -> int:
    if a.fraction != b.fraction:
        raise ConfigError("shares with different fraction bits", expected=str(a.fraction), came=str(b.fraction))
    return a.fraction
