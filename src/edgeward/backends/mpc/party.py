"""One of the two parties while a protocol runs, and the link to the other."""

from __future__ import annotations

from collections.abc import Sequence
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
    """A connection to the other party that sends and receives at once; `Channel` is one.

    The arrays that come back belong to the caller, who may write into them.
    """

    def exchange(self, array: np.ndarray, label: str) -> np.ndarray:
        """Send `array`, return the other party's of the same shape and type: one round, counted under `label`."""

    def exchange_all(self, arrays: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
        """Send all arrays, then return the other party's: one round together, bytes counted under each label."""


@final
@dataclass(frozen=True)
class Party:
    """A party: number 0 or 1, the ring, the link; both parties have the same `slices`.

    With `slices` above 1, large tensors go through layers and activations in that many parts that take turns on the
    channel: one is computed while another travels. Results, bytes and rounds are the same.

    Guarantee of every protocol run on it: a semi-honest adversary who statically corrupts one of the two parties sees
    uniform values only, until a result is opened (proved for each opening: it is masked by a one-time value). The
    dealer is trusted to deal honestly, sees no message of the protocol, and is offline. Nothing is promised against a
    party that deviates, against both together, or against a party together with the dealer. Shapes, fixed-point formats
    and the order of operations are public. Unaudited.
    """

    number: int
    ring: Ring
    link: Link
    slices: int = 1

    def __post_init__(self) -> None:
        """Refuse a third party."""
        if self.number not in (0, 1):
            raise ConfigError("no such party", expected="0 or 1", came=str(self.number))
        if self.slices < 1:
            raise ConfigError("a tensor cannot be cut so", expected="slices of 1 or more", came=str(self.slices))

    @property
    def first(self) -> bool:
        """Return whether this is the party that adds public constants."""
        return self.number == 0

    def open_elements(self, mine: Elements, label: str) -> Elements:
        """Return the elements whose share is `mine`: public to both from here on. One round."""
        return self.open_in(self.ring, mine.astype(self.ring.dtype, copy=False), label)

    def open_all(self, mine: Sequence[Elements], labels: Sequence[str]) -> list[Elements]:
        """Return what the shares in `mine` make, all opened in one round. Cost: one element each."""
        pairs = self.swap_all(mine, labels)[::-1]
        # Given back one by one: together they may be as large as a model.
        return [_sum(self.ring, *pairs.pop()) for _ in mine]

    def swap_all(self, mine: Sequence[Elements], labels: Sequence[str]) -> list[tuple[Elements, Elements]]:
        """Return each share sent with the share that came: `open_all` for a caller that adds them on its way."""
        sent = [np.ascontiguousarray(part, self.ring.dtype) for part in mine]
        came = self.link.exchange_all(sent, labels)
        return [(part, _same_place(part, other, label)) for part, other, label in zip(sent, came, labels, strict=True)]

    def reveal(self, x: Shared, label: str = "result") -> Elements:
        """Return the value of `x`: both parties learn it, and whatever follows from it. One element each, 1 round."""
        return self.open_elements(x.elements, label)

    def open_planes(self, mine: Planes, label: str) -> Planes:
        """Return the bits whose share is `mine`: public to both from here on. One round."""
        return np.asarray(mine ^ self._swap(mine, label))

    def open_in(self, ring: Ring, mine: Elements, label: str) -> Elements:
        """Return the elements of another ring whose share is `mine`: public to both from here on. One round."""
        return _sum(ring, mine, self._swap(mine, label))

    def open_mixed(self, planes: Planes, elements: Elements, ring: Ring, label: str) -> tuple[Planes, Elements]:
        """Return bits and elements of `ring` whose shares are given, both opened in one round."""
        sent = [np.ascontiguousarray(planes), np.ascontiguousarray(elements, ring.dtype)]
        bits, others = self.link.exchange_all(sent, [label, label])
        return (
            np.asarray(sent[0] ^ _same_place(sent[0], bits, label)),
            _sum(ring, sent[1], _same_place(sent[1], others, label)),
        )

    def _swap(self, mine: np.ndarray, label: str) -> np.ndarray:
        return _same_place(mine, self.link.exchange(np.ascontiguousarray(mine), label), label)


def _sum(ring: Ring, mine: Elements, theirs: Elements) -> Elements:
    """Return the sum of two shares in the array that came."""
    return ring.wrap(np.add(mine, theirs, out=theirs))


def _same_place(mine: np.ndarray, theirs: np.ndarray, label: str) -> np.ndarray:
    if theirs.shape != mine.shape or theirs.dtype != mine.dtype:
        raise ProtocolError(
            f"the other party is at another place of the protocol ({label})",
            expected=f"{mine.dtype}{list(mine.shape)}",
            came=f"{theirs.dtype}{list(theirs.shape)}",
            fix="run the same network with the same tuples on both sides",
        )
    return theirs
