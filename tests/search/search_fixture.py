"""Measurements built by hand for the tests of the store, the frontier and the search."""

from edgeward.core import AttackResult, Candidate, Claim, Cost, Estimate, LayerCost, Measurement


def attack(leakage: float = 0.25, name: str = "lira", kind: str = "mislabelled", auc: float = 0.7) -> AttackResult:
    count = round(leakage * 200)
    return AttackResult(
        name=name,
        auc=Estimate(auc, auc - 0.05, auc + 0.05, 400, "hanley-mcneil"),
        balanced_accuracy=0.61,
        tpr_at_1pct=Estimate.proportion(count, 200),
        tpr_at_0_1pct=Estimate.proportion(count // 4, 200),
        positives=200,
        negatives=200,
        realistic_tpr_at_1pct=leakage / 2,
        realistic_fpr=0.012,
        kind=kind,
        roc=((0.0, 0.0), (0.01, leakage), (1.0, 1.0)),
    )


def measurement(
    accuracy: float = 0.9,
    size: float = 1000.0,
    leakage: float | None = 0.25,
    *,
    validation: float | None = None,
    **costs: float,
) -> Measurement:
    cost = Cost().adding("measured", "this file", file_bytes=size).adding("modelled", "profile", **costs)
    return Measurement(
        test_accuracy=Estimate.proportion(round(accuracy * 1000), 1000),
        validation_accuracy=Estimate.proportion(round((accuracy if validation is None else validation) * 1000), 1000),
        train_accuracy=Estimate.proportion(990, 1000),
        audit_accuracy=None,
        attacks=() if leakage is None else (attack(leakage), attack(min(leakage, 0.02), "gap", auc=0.55)),
        cost=cost,
        layers=(LayerCost("0", "linear", (8,), 48, 8, 32, 48.0, 384.0),),
        claims=(Claim("training records", "holder of the model", "a sentence", "measured", "audit"),),
        notes=("a note",),
        extra={"summary": "s", "nested": {"list": [1, 2]}},
    )


def candidate(recipe: str = "none", **config: float) -> Candidate:
    return Candidate(recipe, config, {"seed": 0})
