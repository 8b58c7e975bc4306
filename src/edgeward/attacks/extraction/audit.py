"""`audit_split`: how much better than a black box a split model can be stolen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.attacks.extraction.attacker import Attacker, Theft
from edgeward.attacks.extraction.exposure import Exposure
from edgeward.attacks.extraction.membership import visible_membership
from edgeward.attacks.extraction.queries import LabelWindow, Victim
from edgeward.attacks.extraction.references import References, thefts
from edgeward.attacks.extraction.report import BudgetResult, StealingReport
from edgeward.attacks.extraction.resampling import accuracy, ratio
from edgeward.attacks.extraction.stealing import seeds_of
from edgeward.attacks.extraction.surrogate import Surrogate
from edgeward.core.errors import ConfigError
from edgeward.core.interval import Estimate
from edgeward.core.measurement import AttackResult
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.data.records import Records
from edgeward.graph.network import Network

NO_ANSWER = "the part outside the secure world gives no answer of its own"
NO_MEMBERS = "not measured: no training records of the deployment were passed"


def query_budgets(wanted: Sequence[float], training_records: int) -> tuple[int, ...]:
    """Return budgets as counts, ascending: numbers above 1 as they are, the others as a share of the training set.

    >>> query_budgets((50, 500, 0.01, 0.1), 50000)
    (50, 500, 5000)
    """
    counts = {round(w) if w > 1 else round(w * training_records) for w in wanted}
    if not counts or min(counts) < 2:
        raise ConfigError(
            "these query budgets cannot be audited",
            expected="counts of at least 2, or shares of the training set in (0, 1]",
            came=", ".join(map(str, wanted)) or "none",
            fix="for instance budgets = (50, 500, 0.01, 0.1)",
        )
    return tuple(sorted(counts))


def audit_split(
    exposure: Exposure,
    victim: Victim,
    query_pool: Records,
    holdout: Records,
    budgets: Sequence[int],
    seeds: Sequence[Seed] | int = 3,
    *,
    references: References,
    members: Records | None = None,
    attacker: Attacker | None = None,
    watcher: Watcher | None = None,
) -> StealingReport:
    """Steal a split model from what it shows and from label queries, and compare with the black box.

    Args: `victim` answers as the deployment does (an `Oracle`, or a callable from records to labels; labels only are
    read); `query_pool` are the attacker's own records, whose labels are never read; `holdout` judges and is never used
    to choose; `seeds` independent attackers, or how many; `references` both ends, made by `measure_references` with the
    same pool, holdout, budgets, seeds and attacker (its victim may be the unprotected network, which answers slightly
    better than a split: that lowers ratios); `members` training records of the deployment, for membership on the
    visible part.
    Returns: per budget the attack that the attacker's own queries chose, the black-box attack being one of them.
    Guarantee: measured with these attacks, a lower bound on what can be stolen; nothing is proved. Queries are records:
    taps that belong to none, which the owner of a device can send as well, are not tried.
    Cost: (variants x rates + 1) trainings of one model per budget and seed; each pool record is asked at most once.
    Errors: `ConfigError` when the references were made otherwise, `DataError` when a budget exceeds the pool.
    Source: TEESlice's criterion and strategies (Zhang et al., S&P'24); adaptive variants as in its section 6.
    """
    chosen, attacker, watcher = seeds_of(seeds), attacker or Attacker(), watcher or Silent()
    references.require(budgets, chosen, holdout)
    window, judged = LabelWindow(victim, query_pool), LabelWindow(victim, holdout)
    truth = judged.labels(torch.arange(len(holdout)))
    thief, stolen = thefts(exposure, window, holdout, budgets, chosen, attacker, watcher)
    authorised = _agreement(truth, holdout.y)
    direct, reason = _direct(exposure, holdout)
    membership, membership_reason = _membership(exposure, members, holdout)
    layers = thief.recovery.layers
    return StealingReport(
        name=exposure.name,
        victim_accuracy=authorised,
        direct_accuracy=direct,
        direct_reason=reason,
        gap=None if direct is None else authorised.value - direct.value,
        budgets=tuple(_result(budget, stolen[budget], references, truth, holdout) for budget in sorted(stolen)),
        membership=membership,
        membership_reason=membership_reason,
        recovered=thief.recovery.share if layers else None,
        recovery=tuple(line.to_json() for line in layers),
        attacker=attacker.to_json(),
        seeds=len(chosen),
        victim_queries=window.asked,
        trusted_disguises=0 if exposure.related else len(exposure.disguised),
        notes=(*_notes(budgets, attacker, chosen), *_powerless(references, budgets, holdout)),
    )


def _result(
    budget: int, own: Theft, references: References, truth: Int64[Tensor, " h"], holdout: Records
) -> BudgetResult:
    black_box, no_shield = references.black_box[budget], references.no_shield[budget]
    ignores = black_box.best.merit > own.best.merit
    best = black_box if ignores else own
    draw = Seed(budget).child("bootstrap")
    hits = {t: t.predictions == holdout.y for t in (best, black_box, no_shield)}
    return BudgetResult(
        budget=budget,
        attack=f"black box, {best.best.variant}" if ignores else best.best.variant,
        rate=best.best.rate,
        validation=best.best.validation,
        accuracy=accuracy(hits[best], draw),
        fidelity=accuracy(best.predictions == truth, draw),
        black_box=accuracy(hits[black_box], draw),
        no_shield=accuracy(hits[no_shield], draw),
        ratio_to_black_box=ratio(hits[best], hits[black_box], draw),
        ratio_to_no_shield=ratio(hits[best], hits[no_shield], draw),
        theft=own,
    )


def _agreement(labels: Int64[Tensor, " h"], truth: Int64[Tensor, " h"]) -> Estimate:
    return Estimate.proportion(int((labels == truth).sum()), len(truth))


def runner(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Return the last output of a network as a function of records [n, ...]: what the normal world computes."""
    module = Surrogate(network, (network.outputs[-1],), network.tensors).eval()

    @torch.no_grad()
    def run(x: np.ndarray) -> np.ndarray:
        answer: np.ndarray = torch.cat([module(part) for part in torch.split(torch.from_numpy(x), 256)]).numpy()
        return answer

    return run


def _direct(exposure: Exposure, holdout: Records) -> tuple[Estimate | None, str]:
    if exposure.direct is None:
        return None, NO_ANSWER
    logits = runner(exposure.direct)(holdout.x.numpy())
    return _agreement(torch.from_numpy(logits.argmax(1)), holdout.y), ""


def _membership(exposure: Exposure, members: Records | None, holdout: Records) -> tuple[AttackResult | None, str]:
    if exposure.direct is None:
        return None, NO_ANSWER
    if members is None:
        return None, NO_MEMBERS
    return visible_membership(runner(exposure.direct), members, holdout), ""


def _powerless(references: References, budgets: Sequence[int], holdout: Records) -> list[str]:
    """Return a note for each budget at which the yardstick itself is no better than one constant answer."""
    guess = float(torch.bincount(holdout.y).max()) / len(holdout)
    found = {b: float((references.black_box[b].predictions == holdout.y).double().mean()) for b in sorted(set(budgets))}
    return [
        f"at {budget} queries the black-box attack has {accuracy:.1%}, a constant answer {guess:.1%}: a ratio to it "
        "says little about this budget"
        for budget, accuracy in found.items()
        if accuracy <= guess
    ]


def _notes(budgets: Sequence[int], attacker: Attacker, seeds: Sequence[Any]) -> tuple[str, ...]:
    notes = []
    choosing = attacker.choosing(min(budgets)) * len(seeds[: attacker.search_seeds])
    if choosing < 50:
        notes.append(f"at {min(budgets)} queries only {choosing} of the attackers' records choose the attack")
    if len(seeds) < 3:
        notes.append(f"{len(seeds)} seed(s): the intervals hardly cover the spread between attackers")
    return tuple(notes)
