"""`Figure`: one number of a device profile, never without where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

Basis = Literal["measured", "published", "derived", "assumed"]

BASES: tuple[Basis, ...] = ("measured", "published", "derived", "assumed")
"""From strongest to weakest: taken on the device itself; printed by the source (or a quotient of what it prints and
an exact count); anything that rests on a rule or on a vendor's word that was not checked again; a placeholder nobody
has a source for, to be replaced by a measurement."""


@final
@dataclass(frozen=True)
class Figure:
    """A number with its source (publication, table, row) and its basis (a word of `BASES`)."""

    value: float
    source: str
    basis: Basis

    def scaled(self, factor: float, rule: str) -> Figure:
        """Return this figure times `factor`, marked "derived" (or "assumed" still), with `rule` appended to its source.

        >>> Figure(80e6, "a board", "published").scaled(0.5, "half").basis
        'derived'
        """
        basis: Basis = "assumed" if self.basis == "assumed" else "derived"
        return Figure(self.value * factor, f"{self.source}; {rule}", basis)

    def to_json(self) -> dict[str, Any]:
        """Return {"value", "source", "basis"}."""
        return asdict(self)


def weakest(figures: Iterable[Figure]) -> Basis:
    """Return the weakest basis among `figures`: what a prediction made from all of them rests on.

    >>> weakest([Figure(1, "a", "measured"), Figure(2, "b", "published")])
    'published'
    """
    return BASES[max((BASES.index(figure.basis) for figure in figures), default=len(BASES) - 1)]
