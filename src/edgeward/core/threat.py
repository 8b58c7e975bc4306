"""Threats: who wants what, with which access, and how hard we try to be them."""

from __future__ import annotations

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, final

from edgeward.core.errors import ConfigError
from edgeward.core.record_kind import KINDS, RecordKind, kinds_of

Access = Literal["label", "confidence", "gradients", "timing", "exits"]


class Threat(ABC):
    """An adversary against one asset; concrete threats are frozen dataclasses."""

    slug: ClassVar[str]


@final
@dataclass(frozen=True)
class MembershipInference(Threat):
    """An adversary who asks whether a record was in the training set.

    `kinds` names the kinds of audited records (`edgeward.core.record_kind`), all by default; the worst of them counts.
    Planted kinds are audited on `shadows` models that differ in the planted records alone, all others fixed (Aerni,
    Zhang, Tramèr, CCS'24); natural kinds on `shadows` further models, each trained on a random half of the records
    (Carlini et al., S&P'22). `canaries` training records give way to the planted ones and are shared out among the
    planted kinds. `access` is what the adversary reads of the target.
    """

    slug: ClassVar[str] = "membership"

    shadows: int = 16
    canaries: int = 200
    access: Access = "confidence"
    kinds: tuple[str, ...] = tuple(KINDS)

    def __post_init__(self) -> None:
        """Refuse audits that cannot say anything."""
        problems = []
        if self.shadows < 4 or self.shadows % 2:
            problems.append(f"shadows = {self.shadows}: expected an even number of at least 4 (each record is in half)")
        object.__setattr__(self, "kinds", tuple(kind.slug for kind in kinds_of(self.kinds)))
        if not self.kinds:
            problems.append(f"kinds is empty: expected at least one of {', '.join(KINDS)}")
        if self.planted and self.canaries < 10:
            problems.append(f"canaries = {self.canaries}: expected at least 10")
        if self.access not in ("label", "confidence"):
            problems.append(f"access = '{self.access}': membership attacks read 'label' or 'confidence'")
        if problems:
            raise ConfigError("the membership threat cannot be audited:\n  " + "\n  ".join(problems))

    @property
    def planted(self) -> tuple[RecordKind, ...]:
        """The kinds made for the audit."""
        return tuple(kind for kind in kinds_of(self.kinds) if kind.planted)

    @property
    def natural(self) -> tuple[RecordKind, ...]:
        """The kinds that are training records as they are."""
        return tuple(kind for kind in kinds_of(self.kinds) if not kind.planted)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"threat": self.slug, **asdict(self), "kinds": list(self.kinds)}
