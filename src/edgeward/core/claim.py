"""Claims: what is said about an asset, against whom, and on what basis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, final

Asset = Literal["training records", "model weights", "user input", "budget", "artefact"]
Basis = Literal["proved", "measured", "assumed"]


@final
@dataclass(frozen=True)
class Claim:
    """One sentence that travels with a candidate and its bundle; reports print only claims that exist."""

    asset: Asset
    adversary: str
    statement: str
    basis: Basis
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Claim:
        """Read back what `to_json` wrote."""
        return cls(**data)
