"""How a comparison is cut into chunks and merged: public sizes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from edgeward.core.errors import ConfigError, unknown_name


@final
@dataclass(frozen=True)
class Merge:
    """One group of neighbouring chunks, `size` of them, merged in one round.

    For chunk j (lowest is 0) the parties share less_j and equal_j; less = xor_j less_j and_(i>j) equal_i. Opened
    under one-time masks are equal_i for i in `equals` and less_j for j < size - 1; `whole` says that the equality of
    the group is wanted too (the lowest group's never is).
    """

    size: int
    whole: bool

    @property
    def equals(self) -> int:
        """Return how many equalities are opened."""
        return self.size if self.whole else self.size - 1

    @property
    def opened(self) -> int:
        """Return how many bits are opened; as many masks are dealt."""
        return self.equals + self.size - 1 if self.size > 1 else 0

    @property
    def products(self) -> int:
        """Return how many products of masks are dealt."""
        if self.size == 1:
            return 0
        return (1 << self.equals) - 1 + (1 << self.size) - 2 - self.opened


@final
@dataclass(frozen=True)
class Layout:
    """How the low `width` bits are compared with a mask's.

    By look-up of chunks of `chunk` bits, then merges of `radix` chunks a round; or, with `keys`, by keys of a
    distributed comparison function, which each party evaluates alone (`chunk` and `radix` then say nothing).

    The value compared must lie in [-2^(width-1), 2^(width-1)). chunk=1, radix=2 is the bit-sliced tree; larger chunks
    and radices save rounds and bytes online and cost more corrections.

    >>> Layout(32, 4, 4).rounds, Layout(32, 4, 4).opened, Layout(32, 1, 2).rounds
    (2, 15, 5)
    """

    width: int = 32
    chunk: int = 4
    radix: int = 4
    keys: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that have no meaning or whose tables would be large."""
        if not (2 <= self.width <= 64 and 1 <= self.chunk <= 8 and 2 <= self.radix <= 8):
            raise ConfigError(
                "no such comparison", expected="width 2..64, chunk 1..8, radix 2..8", came=f"{self}", fix="Layout()"
            )

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the widths of the chunks below the sign bit, lowest first; none with keys."""
        if self.keys:
            return ()
        full, rest = divmod(self.width - 1, self.chunk)
        return (self.chunk,) * full + ((rest,) if rest else ())

    @property
    def levels(self) -> tuple[tuple[Merge, ...], ...]:
        """Return the merges of each round, lowest group first."""
        levels, left = [], len(self.chunks)
        while left > 1:
            sizes = [min(self.radix, left - start) for start in range(0, left, self.radix)]
            levels.append(tuple(Merge(size, group > 0) for group, size in enumerate(sizes)))
            left = len(sizes)
        return tuple(levels)

    @property
    def rounds(self) -> int:
        """Return the rounds of the merges."""
        return len(self.levels)

    @property
    def opened(self) -> int:
        """Return the bits opened per element over all merges."""
        return sum(merge.opened for level in self.levels for merge in level)

    @property
    def table_bits(self) -> int:
        """Return the look-up bits dealt per element."""
        return sum((1 << width) - 1 for width in self.chunks)


STANDARD = Layout()

VARIANTS: Mapping[str, Layout] = {
    "lookup": STANDARD,
    "lookup8": Layout(chunk=8),
    "tree": Layout(chunk=1, radix=2),
    "fss": Layout(keys=True),
}
"""Comparisons by name: look-up of 4 or 8 bits, the bit-sliced tree, function secret sharing."""


def variant(name: str, width: int = STANDARD.width) -> Layout:
    """Return the comparison called `name` for `width` bits.

    >>> variant("tree").rounds, variant("lookup").rounds, variant("lookup8").rounds, variant("fss").rounds
    (5, 2, 1, 0)
    """
    if name not in VARIANTS:
        raise unknown_name("comparison", name, VARIANTS)
    return replace(VARIANTS[name], width=width)
