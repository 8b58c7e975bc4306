"""Leakage of a candidate: its lowered siblings audited on the designed records, and a look at the shipped one alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from edgeward.attacks.membership.audit import rates, score
from edgeward.attacks.metrics import judged
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.scored import Scored
from edgeward.attacks.signals import Signals
from edgeward.attacks.statistics import evaluate as statistic
from edgeward.attacks.strongest import worst
from edgeward.core.measurement import AttackResult, Strongest
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits
from edgeward.measure.membership_design import MembershipDesign, Panel
from edgeward.measure.siblings import Siblings, answers

SHADOWLESS = {"gap": "correctness", "loss": "loss", "modified-entropy": "modified-entropy"}


@final
@dataclass(frozen=True)
class Leakage:
    """What an audit found: every attack on every kind of records, the strongest per kind, and the worst of all."""

    attacks: tuple[AttackResult, ...]
    kinds: tuple[Strongest, ...]
    worst: Strongest


def leakage(
    siblings: Siblings, plan: MembershipDesign, splits: Splits, threat: MembershipInference, seed: Seed
) -> Leakage:
    """Audit the lowered siblings on every kind of designed records by every attack the access allows.

    The attacker knows which kind a record is of and calibrates on records of that kind alone. Attacks are listed kind
    by kind as the design lists them, strongest first within a kind; `seed` draws the halves that correct for choosing.
    Guarantee: measured; the shadow models went through the target's own recipe and lowering (adaptive attacker).
    """
    scored: dict[str, Scored] = {}
    attacks: list[AttackResult] = []
    for signals, panel in panel_signals(siblings, plan, splits):
        slug = panel.kind.slug
        scored[slug] = score(signals, access=threat.access, groups=panel.clusters, models=panel.models)
        attacks += rates(scored[slug], slug)
    kinds, over_all = worst(scored, seed=seed)
    return Leakage(tuple(attacks), tuple(kinds.values()), over_all)


def panel_signals(siblings: Siblings, plan: MembershipDesign, splits: Splits) -> Iterator[tuple[Signals, Panel]]:
    """Yield what the models of each panel answer; every model runs once over every record it is asked about."""
    asked = torch.cat([plan.x, splits.shadow.x])
    known: dict[tuple[int, ...], Tensor] = {}
    for panel in plan.panels:
        models = tuple(panel.models.tolist())
        if models not in known:
            known[models] = answers(tuple(siblings.audited[i] for i in models), asked)
        logits = known[models]
        yield (
            Signals(
                logits=logits[:, panel.rows],
                labels=plan.y[panel.rows],
                keep=plan.keep(panel),
                reference_logits=logits[:, len(plan.x) :],
                reference_labels=splits.shadow.y,
            ),
            panel,
        )


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
        results.append(judged(label, scores, member, kind="population", adaptive=False))
    return tuple(results)
