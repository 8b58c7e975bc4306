"""One of the two parties while a protocol runs, and the link to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np

from edgeward.backends.mpc.planes import Planes
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError, EdgewardError


class ProtocolError(EdgewardError):
    """The other party sent something that the protocol does not allow; nothing computed so far may be used."""


@runtime_checkable
class Link(Protocol):
    """A connection to the other party that sends and receives at once; `Channel` is one."""

    def exchange(self, array: np.ndarray, label: str) -> np.ndarray:
        """Send `array`, return the other party's of the same shape and type: one round, counted under `label`."""


@final
@dataclass(frozen=True)
class Party:
    """A party: number 0 or 1, the ring, the link.

    Guarantee of every protocol run on it: a semi-honest adversary who statically corrupts one of the two parties sees
    uniform values only, until a result is opened (proved for each opening: it is masked by a one-time value). The
    dealer is trusted to deal honestly, sees no message of the protocol, and is offline. Nothing is promised against a
    party that deviates, against both together, or against a party together with the dealer. Shapes, fixed-point formats
    and the order of operations are public. Unaudited.
    """

    number: int
    ring: Ring
    link: Link

    def __post_init__(self) -> None:
        """Refuse a third party."""
        if self.number not in (0, 1):
            raise ConfigError("no such party", expected="0 or 1", came=str(self.number))

    @property
    def first(self) -> bool:
        """Return whether this is the party that adds public constants."""
        return self.number == 0

    def open_elements(self, mine: Elements, label: str) -> Elements:
        """Return the elements whose share is `mine`: public to both from here on. One round."""
        theirs = self._swap(mine.astype(self.ring.dtype, copy=False), label)
        return self.ring.wrap(mine + theirs)

    def reveal(self, x: Shared, label: str = "result") -> Elements:
        """Return the value of `x`: both parties learn it, and whatever follows from it. One element each, 1 round."""
        return self.open_elements(x.elements, label)

    def open_planes(self, mine: Planes, label: str) -> Planes:
        """Return the bits whose share is `mine`: public to both from here on. One round."""
        return np.asarray(mine ^ self._swap(mine, label))

    def _swap(self, mine: np.ndarray, label: str) -> np.ndarray:
        theirs = self.link.exchange(np.ascontiguousarray(mine), label)
        if theirs.shape != mine.shape or theirs.dtype != mine.dtype:
            raise ProtocolError(
                f"the other party is at another place of the protocol ({label})",
                expected=f"{mine.dtype}{list(mine.shape)}",
                came=f"{theirs.dtype}{list(theirs.shape)}",
                fix="run the same network with the same tuples on both sides",
            )
        return theirs
