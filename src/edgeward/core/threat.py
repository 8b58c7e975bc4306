"""Threats: who wants what, with which access, and how hard we try to be them."""

from __future__ import annotations

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, final

from edgeward.core.errors import ConfigError

Access = Literal["label", "confidence", "gradients", "timing", "exits"]
Protocol = Literal["canaries", "population"]


class Threat(ABC):
    """An adversary against one asset; concrete threats are frozen dataclasses."""

    slug: ClassVar[str]


@final
@dataclass(frozen=True)
class MembershipInference(Threat):
    """An adversary who asks whether a record was in the training set.

    `protocol="canaries"` audits mislabelled records whose membership varies over `shadows` models while all other
    records stay fixed (Aerni, Zhang, Tramèr, CCS'24): the worst case. `protocol="population"` lets every training
    record be in half of the models: the average case. `access` is what the adversary reads of the target.
    """

    slug: ClassVar[str] = "membership"

    shadows: int = 16
    canaries: int = 200
    access: Access = "confidence"
    protocol: Protocol = "canaries"

    def __post_init__(self) -> None:
        """Refuse audits that cannot say anything."""
        problems = []
        if self.shadows < 4 or self.shadows % 2:
            problems.append(f"shadows = {self.shadows}: expected an even number of at least 4 (each record is in half)")
        if self.protocol == "canaries" and self.canaries < 10:
            problems.append(f"canaries = {self.canaries}: expected at least 10")
        if self.protocol not in ("canaries", "population"):
            problems.append(f"protocol = '{self.protocol}': expected 'canaries' or 'population'")
        if self.access not in ("label", "confidence"):
            problems.append(f"access = '{self.access}': membership attacks read 'label' or 'confidence'")
        if problems:
            raise ConfigError("the membership threat cannot be audited:\n  " + "\n  ".join(problems))

    @property
    def negatives(self) -> int:
        """Number of non-member trials the canary protocol pools over all models."""
        return self.shadows * self.canaries // 2

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"threat": self.slug, **asdict(self)}
