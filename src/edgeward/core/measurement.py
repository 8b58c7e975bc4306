"""What was measured of a candidate: utility, leakage, cost, each with interval or provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, final

from edgeward.core.claim import Claim
from edgeward.core.cost import Cost
from edgeward.core.interval import Estimate

Mode = Literal["simulated", "emulated", "deployed", "host"]


@final
@dataclass(frozen=True)
class AttackResult:
    """How well one attack told members from non-members.

    `tpr_at_*` and `balanced_accuracy` are read off the pooled ROC, with the threshold in hindsight (optimistic for the
    attacker); `realistic_tpr_at_1pct`, which reached `realistic_fpr`, and `realistic_balanced_accuracy` use thresholds
    chosen on the other models only. `kind` names the kind of records (`core.record_kind`), or "population": typical
    records of the shipped executable alone. `roc` is a thinned curve of (FPR, TPR) points.
    `adaptive` says whether the attacker's shadow models went through the same recipe as the target.
    """

    name: str
    auc: Estimate
    balanced_accuracy: float
    tpr_at_1pct: Estimate
    tpr_at_0_1pct: Estimate
    positives: int
    negatives: int
    realistic_tpr_at_1pct: float | None = None
    realistic_fpr: float | None = None
    adaptive: bool = True
    kind: str = "mislabelled"
    roc: tuple[tuple[float, float], ...] = ()
    realistic_balanced_accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plain form of `report.json`: each rate with its interval and number of negatives."""
        plain = asdict(self)
        for name in ("auc", "tpr_at_1pct", "tpr_at_0_1pct"):
            plain[name] = {**getattr(self, name).to_json(), "negatives": self.negatives}
        plain["roc"] = [list(point) for point in self.roc]
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AttackResult:
        """Read back what `to_json` wrote."""
        fields = dict(data)
        for name in ("auc", "tpr_at_1pct", "tpr_at_0_1pct"):
            fields[name] = Estimate.from_json(fields[name])
        fields["roc"] = tuple((float(a), float(b)) for a, b in fields["roc"])
        return cls(**fields)


@final
@dataclass(frozen=True)
class Strongest:
    """The strongest of `attacks` attacks: its `name`, its value in `hindsight`, and one corrected for the choice.

    `corrected` is the TPR at 1 % FPR of attacks chosen on one half of the record groups and judged on the other, over
    many halvings, with an interval that holds after the choice. `kind` names the kind of records, where it was chosen.
    """

    name: str
    hindsight: float
    corrected: Estimate
    attacks: int
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plain form of `report.json`."""
        return {**asdict(self), "corrected": self.corrected.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Strongest:
        """Read back what `to_json` wrote."""
        return cls(**{**data, "corrected": Estimate.from_json(data["corrected"])})


@final
@dataclass(frozen=True)
class LayerCost:
    """One row of the per-layer table: MACs, bits, bytes of one layer for one input."""

    name: str
    operator: str
    output_shape: tuple[int, ...]
    macs: int
    weight_bits: int
    activation_bits: int
    weight_bytes: float
    ace: float


@final
@dataclass(frozen=True)
class Measurement:
    """Everything measured of one candidate, on the executable that goes into its bundle.

    `test_accuracy` is the shipped executable on the holdout; `audit_accuracy` the mean over the siblings that the worst
    kind of records was audited on. `attacks` holds every attack on every kind, kind by kind and strongest first, the
    gap attack included; `kinds` the strongest per kind and `worst` the strongest on the worst kind.
    """

    test_accuracy: Estimate
    validation_accuracy: Estimate
    train_accuracy: Estimate
    audit_accuracy: Estimate | None
    attacks: tuple[AttackResult, ...]
    cost: Cost
    layers: tuple[LayerCost, ...] = ()
    claims: tuple[Claim, ...] = ()
    mode: Mode = "host"
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[Strongest, ...] = ()
    worst: Strongest | None = None

    @property
    def strongest_attack(self) -> AttackResult | None:
        """The strongest attack on the worst kind of records, its TPR at 1 % FPR corrected for having been chosen.

        Where no kinds were compared it is the attack with the largest TPR at 1 % FPR (ties: AUC), a look at the shipped
        model alone only where there is nothing else.
        """
        if self.worst is not None:
            found = next(a for a in self.attacks if (a.kind, a.name) == (self.worst.kind, self.worst.name))
            return replace(found, tpr_at_1pct=self.worst.corrected)
        audited = [attack for attack in self.attacks if attack.kind != "population"]
        return max(audited or self.attacks, key=lambda a: (a.tpr_at_1pct.value, a.auc.value), default=None)

    def value(self, name: str) -> float:
        """Return the number a budget's limit called `name` is judged on; NaN when it was not measured."""
        if name == "test_accuracy":
            return self.test_accuracy.value
        if name in ("tpr_at_1pct", "tpr_at_0_1pct", "auc"):
            strongest = self.strongest_attack
            return float(getattr(strongest, name).value) if strongest else float("nan")
        return self.cost.value(name) if name in self.cost else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the plain form of `report.json`."""
        strongest = self.strongest_attack
        return {
            "test_accuracy": self.test_accuracy.value,
            "test_accuracy_estimate": self.test_accuracy.to_json(),
            "validation_accuracy": self.validation_accuracy.to_json(),
            "train_accuracy": self.train_accuracy.to_json(),
            "audit_accuracy": self.audit_accuracy.to_json() if self.audit_accuracy else None,
            "strongest_attack": strongest.to_json() if strongest else None,
            "attacks": [attack.to_json() for attack in self.attacks],
            "kinds": [kind.to_json() for kind in self.kinds],
            "worst": self.worst.to_json() if self.worst else None,
            "cost": self.cost.to_json(),
            "layers": [asdict(layer) for layer in self.layers],
            "claims": [claim.to_json() for claim in self.claims],
            "mode": self.mode,
            "notes": list(self.notes),
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Read back what `to_json` wrote."""
        audit = data["audit_accuracy"]
        return cls(
            test_accuracy=Estimate.from_json(data["test_accuracy_estimate"]),
            validation_accuracy=Estimate.from_json(data["validation_accuracy"]),
            train_accuracy=Estimate.from_json(data["train_accuracy"]),
            audit_accuracy=Estimate.from_json(audit) if audit else None,
            attacks=tuple(AttackResult.from_json(attack) for attack in data["attacks"]),
            cost=Cost.from_json(data["cost"]),
            layers=tuple(LayerCost(**{**row, "output_shape": tuple(row["output_shape"])}) for row in data["layers"]),
            claims=tuple(Claim.from_json(claim) for claim in data["claims"]),
            mode=data["mode"],
            notes=tuple(data["notes"]),
            extra=dict(data["extra"]),
            kinds=tuple(Strongest.from_json(kind) for kind in data["kinds"]),
            worst=Strongest.from_json(data["worst"]) if data["worst"] else None,
        )
