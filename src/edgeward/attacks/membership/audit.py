"""`audit`: every attack against every sibling in turn, strongest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from edgeward.attacks.attack import ATTACKS, Attack, Points
from edgeward.attacks.clustered import clustered_auc, clustered_tpr
from edgeward.attacks.membership.gap import Gap
from edgeward.attacks.metrics import judged, transferred, transferred_accuracy
from edgeward.attacks.oracle import Oracle, offers
from edgeward.attacks.scored import Scored
from edgeward.attacks.signals import Signals
from edgeward.core.errors import ConfigError, DataError
from edgeward.core.measurement import AttackResult
from edgeward.core.threat import Access


def recorded_oracle(signals: Signals, target: int, access: Access) -> Oracle:
    """Return an oracle that replays model `target`; it is asked row numbers: the points, then the population."""
    answers = torch.cat([signals.logits[target], signals.reference_logits[target]]).double().numpy()
    return Oracle(lambda rows: answers[rows], access)


def leave_one_out(
    signals: Signals, attack: Attack, *, access: Access = "confidence", limit: int | None = None, adaptive: bool = True
) -> Float64[Tensor, "S n"]:
    """Return the attack's score of every point under every sibling, each attacked by the others.

    Cost: S fits and one replayed query per model and point (and population record); no model is run.
    """
    points = Points.recorded(signals.logits.shape[1], signals.reference_logits.shape[1])
    rows = []
    for target in range(len(signals)):
        knowledge = signals.knowledge(target, limit=limit, adaptive=adaptive)
        rows.append(attack.fit(knowledge).score(recorded_oracle(signals, target, access), points))
    return torch.stack(rows)


def judge(
    name: str,
    scores: Float64[Tensor, "S n"],
    truth: Bool[Tensor, "S n"],
    *,
    kind: str = "mislabelled",
    adaptive: bool = True,
    groups: Int[Tensor, " n"] | None = None,
) -> AttackResult:
    """Turn leave-one-out scores into rates with intervals, pooled over models and points.

    Records with equal `groups` are in or out together and count as one. The intervals hold for other records and other
    models of the same recipe (coverage measured: `docs/decisions/0019-intervals-over-records-and-models.md`).
    """
    return _judged(name, Scored({name: scores}, truth, groups), kind, adaptive)


def _judged(name: str, scored: Scored, kind: str, adaptive: bool) -> AttackResult:
    scores, truth, clusters = scored.scores[name], scored.truth, scored.clusters
    tpr, fpr = transferred(scores, truth, 0.01)
    rates = judged(name, scores, truth, kind=kind, adaptive=adaptive)
    flat = scores.flatten().numpy(), truth.flatten().numpy()
    return replace(
        rates,
        auc=clustered_auc(*flat, clusters),
        tpr_at_1pct=clustered_tpr(rates.tpr_at_1pct.value, *flat, 0.01, clusters),
        tpr_at_0_1pct=clustered_tpr(rates.tpr_at_0_1pct.value, *flat, 0.001, clusters),
        realistic_tpr_at_1pct=tpr,
        realistic_fpr=fpr,
        realistic_balanced_accuracy=transferred_accuracy(scores, truth),
    )


def audit(
    signals: Signals,
    attacks: Sequence[Attack] | None = None,
    *,
    access: Access = "confidence",
    kind: str = "mislabelled",
    adaptive: bool = True,
    limit: int | None = None,
    groups: Int[Tensor, " n"] | None = None,
) -> tuple[AttackResult, ...]:
    """Run every attack (all registered ones by default) against every sibling and return the strongest first.

    `score` followed by `rates`, which see. What the first of many attacks shows favours the attacker: `strongest`
    corrects for the choice, from the same scores.
    """
    return rates(score(signals, attacks, access=access, limit=limit, adaptive=adaptive, groups=groups), kind, adaptive)


def score(
    signals: Signals,
    attacks: Sequence[Attack] | None = None,
    *,
    access: Access = "confidence",
    adaptive: bool = True,
    limit: int | None = None,
    groups: Int[Tensor, " n"] | None = None,
    models: Int[Tensor, " S"] | None = None,
) -> Scored:
    """Return the score of every point under every sibling by every attack (all registered ones by default).

    Attacks that need more than `access` are left out; the gap attack is always in.

    Args: `adaptive` says whether the siblings went through the target's recipe; `limit` caps the shadow models used
    per point; points with equal `groups` are in or out together; `models` number the siblings over several audits.
    Cost: no model runs; S fits per attack, vectorised over points.
    Raises: `DataError` for fewer than 4 siblings, `ConfigError` for an unknown access or a name that occurs twice.
    """
    if len(signals) < 4:
        raise DataError(
            "too few siblings to audit",
            expected="at least 4 models, so that the others hold each point at least once in and once out",
            came=f"{len(signals)}",
            fix="train at least 4 models with balanced membership; 16 or more for usable intervals",
        )
    chosen = list(ATTACKS.values() if attacks is None else attacks)
    chosen += [] if any(isinstance(attack, Gap) for attack in chosen) else [Gap()]
    twice = sorted(name for name, count in Counter(attack.name for attack in chosen).items() if count > 1)
    if twice:
        raise ConfigError(
            "two attacks of one audit share a name",
            expected="one setting of each attack",
            came=", ".join(twice),
            fix="audit the settings one after the other",
        )
    allowed = [attack for attack in chosen if offers(access, attack.access)]
    scores = {a.name: leave_one_out(signals, a, access=access, limit=limit, adaptive=adaptive) for a in allowed}
    return Scored(scores, signals.keep, groups, models)


def rates(scored: Scored, kind: str = "mislabelled", adaptive: bool = True) -> tuple[AttackResult, ...]:
    """Return one result per attack, the strongest first: by TPR at 1 % FPR, then AUC, then name.

    Args: `kind` says whose membership varied; `adaptive` whether the siblings went through the target's recipe.
    Guarantee: measured, a lower bound: another attack may do better. Intervals as in `judge`.
    """
    results = [_judged(name, scored, kind, adaptive) for name in scored.scores]
    return tuple(sorted(results, key=lambda r: (-r.tpr_at_1pct.value, -r.auc.value, r.name)))


def per_record_risk(scores: Float64[Tensor, "S n"], truth: Bool[Tensor, "S n"]) -> Float64[Tensor, " n"]:
    """Return per point how far its member scores stand above non-member scores: 0.5 at chance, 1 when always above.

    It is the mean over the models that trained on the point of the fraction of all non-member trials scoring lower
    (ties count half); its mean over points of equal membership is the AUC. NaN for points without a member trial.
    """
    ordered = np.sort(scores[~truth].numpy())
    below = np.searchsorted(ordered, scores.numpy(), side="left")
    upto = np.searchsorted(ordered, scores.numpy(), side="right")
    rank = torch.from_numpy((below + upto) / (2.0 * len(ordered)))
    return (rank * truth).sum(0) / truth.sum(0).double()
