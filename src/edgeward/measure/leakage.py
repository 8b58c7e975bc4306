"""Leakage of a candidate: its lowered siblings audited on the designed records, and a look at the shipped one alone."""

from __future__ import annotations

import torch

from edgeward.attacks.membership.audit import audit
from edgeward.attacks.metrics import judged
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.signals import Signals
from edgeward.attacks.statistics import evaluate as statistic
from edgeward.core.measurement import AttackResult
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits
from edgeward.measure.membership_design import MembershipDesign
from edgeward.measure.siblings import Siblings, answers

SHADOWLESS = {"gap": "correctness", "loss": "loss", "modified-entropy": "modified-entropy"}


def leakage(
    siblings: Siblings, plan: MembershipDesign, splits: Splits, threat: MembershipInference
) -> tuple[AttackResult, ...]:
    """Audit the lowered siblings on the designed records by every attack the access allows, strongest first.

    Guarantee: measured; the shadow models went through the target's own recipe and lowering (adaptive attacker).
    """
    signals = Signals(
        logits=answers(siblings.audited, plan.x[plan.audited]),
        labels=plan.y[plan.audited],
        keep=plan.keep,
        reference_logits=answers(siblings.audited, splits.shadow.x),
        reference_labels=splits.shadow.y,
    )
    return audit(signals, access=threat.access, audience=threat.protocol)


def population_leakage(siblings: Siblings, splits: Splits, threat: MembershipInference) -> tuple[AttackResult, ...]:
    """Attack the shipped executable without shadow models: its training records against the holdout, average case."""
    x = torch.cat([splits.train.x, splits.holdout.x])
    labels = torch.cat([splits.train.y, splits.holdout.y])
    member = torch.arange(len(x)) < len(splits.train)
    oracle = Oracle(siblings.shipped.run, threat.access)
    results = []
    for name, quantity in SHADOWLESS.items():
        if quantity == "correctness":
            scores = (oracle.labels(x.numpy()) == labels).double()
        elif threat.access == "confidence":
            scores = statistic(quantity, oracle.log_confidences(x.numpy()), labels)
        else:
            continue
        label = f"{name} (shipped model)"
        results.append(judged(label, scores, member, audience="population", adaptive=False))
    return tuple(results)
