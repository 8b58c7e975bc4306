"""`audit_split`: how much better than a black box a split model can be stolen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.attacks.extraction.attacker import Attacker, Attempt, Theft
from edgeward.attacks.extraction.exposure import Exposure
from edgeward.attacks.extraction.membership import visible_membership
from edgeward.attacks.extraction.probing import QUERIES
from edgeward.attacks.extraction.queries import LabelWindow, Victim
from edgeward.attacks.extraction.references import References, digest_of, thefts, window_of
from edgeward.attacks.extraction.report import BudgetResult, OwnChoice, StealingReport
from edgeward.attacks.extraction.resampling import accuracy, best_ratio, ratio
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
    choosing: Records | None = None,
    foreign: Records | None = None,
) -> StealingReport:
    """Steal a split model from what it shows and from label queries, and compare with the black box.

    Args: `victim` answers as the deployment does (an `Oracle`, or a callable from records to labels; labels only are
    read); `query_pool` are the attacker's own records, whose labels are never read, `foreign` further ones of another
    origin; `holdout` judges; `seeds` independent attackers, or how many; `references` both ends, made by
    `measure_references` with the same victim, pool, holdout, budgets, seeds and attacker; `members` training records of
    the deployment, for membership on the visible part; `choosing` records by which splits are chosen: the ratio on them
    comes beside that on the holdout.
    Returns: per budget the strongest attack in hindsight, the black-box attack being one of them, and what the
    attacker's own queries would have chosen.
    Guarantee: measured with these attacks, a lower bound on what can be stolen; nothing is proved. Taking the best on
    the holdout favours the attacker, and the references alike. Queries that belong to no record are tried with the
    leading variant; taps that belong to none, which the owner of a device can send as well, are not.
    Cost: (variants x rates + 1 + finalists + ways to query) trainings of one model per budget and seed; each pool
    record is asked at most once.
    Errors: `ConfigError` when the references were made otherwise, `DataError` when a budget exceeds the pool.
    Source: TEESlice's criterion and strategies (Zhang et al., S&P'24); adaptive variants as in its section 6.
    """
    chosen, attacker, watcher = seeds_of(seeds), attacker or Attacker(), watcher or Silent()
    references.require(budgets, chosen, holdout, choosing)
    window = window_of(victim, query_pool, budgets, chosen, attacker, foreign)
    judged = LabelWindow(victim, holdout)
    truth = judged.labels(torch.arange(len(holdout)))
    alike = references if references.labels == digest_of(truth) else None
    thief, stolen = thefts(exposure, window, holdout, budgets, chosen, attacker, watcher, choosing, alike)
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
        budgets=tuple(_result(b, stolen[b], references, truth, holdout, choosing) for b in sorted(stolen)),
        membership=membership,
        membership_reason=membership_reason,
        recovered=thief.recovery.share if layers else None,
        recovery=tuple(line.to_json() for line in layers),
        attacker=attacker.to_json(),
        seeds=len(chosen),
        victim_queries=window.asked or references.asked,
        trusted_disguises=0 if exposure.related else len(exposure.disguised),
        holdout_records=len(holdout),
        direct_choosing=None if choosing is None else _direct(exposure, choosing)[0],
        notes=(
            *_notes(budgets, attacker, chosen, foreign),
            *_powerless(references, budgets, holdout),
            *_otherwise(references, truth),
        ),
    )


def _result(
    budget: int,
    own: Theft,
    references: References,
    truth: Int64[Tensor, " h"],
    holdout: Records,
    choosing: Records | None,
) -> BudgetResult:
    whole = (own, references.black_box[budget], references.no_shield[budget])
    mine, black_box, no_shield = (theft.upto(0, len(holdout)) for theft in whole)
    draw = Seed(budget).child("bootstrap")
    # ignoring what is visible is always open to the attacker
    every = torch.cat([mine.every, black_box.every])
    hits, boxed, bare = (predictions == holdout.y for predictions in (every, black_box.every, no_shield.every))
    top, boxed_top, bare_top = (int(side.double().mean((1, 2)).argmax()) for side in (hits, boxed, bare))
    ignores = top >= len(mine.rivals)
    attempt = (*mine.rivals, *black_box.rivals)[top]
    return BudgetResult(
        budget=budget,
        attack=_named(attempt, ignores),
        rate=attempt.rate,
        validation=attempt.validation,
        accuracy=accuracy(hits[top], draw),
        fidelity=accuracy(every[top] == truth, draw),
        black_box=accuracy(boxed[boxed_top], draw),
        no_shield=accuracy(bare[bare_top], draw),
        ratio_to_black_box=best_ratio(hits, boxed, draw),
        ratio_to_no_shield=ratio(hits[top], bare[bare_top], draw),
        theft=own,
        own_choice=_own_choice(mine, black_box, holdout, draw),
        choosing=None if choosing is None else _on(choosing, len(holdout), whole[0], whole[1], draw),
    )


def _own_choice(mine: Theft, black_box: Theft, holdout: Records, draw: Seed) -> OwnChoice:
    """Return what the attacker would have taken: the black-box attack where its own queries rate that higher."""
    ignores = black_box.best.merit > mine.best.merit
    best = black_box if ignores else mine
    hits, boxed = best.predictions == holdout.y, black_box.predictions == holdout.y
    return OwnChoice(_named(best.best, ignores), accuracy(hits, draw), ratio(hits, boxed, draw))


def _on(choosing: Records, start: int, own: Theft, black_box: Theft, draw: Seed) -> Estimate:
    mine, boxed = (theft.upto(start, start + len(choosing)).every for theft in (own, black_box))
    return best_ratio(torch.cat([mine, boxed]) == choosing.y, boxed == choosing.y, draw)


def _named(attempt: Attempt, ignores: bool) -> str:
    found = f"black box, {attempt.variant}" if ignores else attempt.variant
    return found if attempt.queries == "records" else f"{found}, queries: {attempt.queries}"


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
    judged = {b: references.black_box[b].upto(0, len(holdout)).every for b in sorted(set(budgets))}
    found = {b: float((every == holdout.y).double().mean((1, 2)).max()) for b, every in judged.items()}
    return [
        f"at {budget} queries the black-box attack has {accuracy:.1%}, a constant answer {guess:.1%}: a ratio to it "
        "says little about this budget"
        for budget, accuracy in found.items()
        if accuracy <= guess
    ]


def _otherwise(references: References, truth: Int64[Tensor, " h"]) -> list[str]:
    """Return a note where the references were labelled by another form of the victim than the audit."""
    if references.labels in ("", digest_of(truth)):
        return []
    return ["the references were labelled by another form of the victim, whose answers differ"]


def _notes(
    budgets: Sequence[int], attacker: Attacker, seeds: Sequence[Any], foreign: Records | None
) -> tuple[str, ...]:
    notes = []
    choosing = attacker.choosing(min(budgets)) * len(seeds[: attacker.search_seeds])
    if choosing < 50:
        notes.append(f"at {min(budgets)} queries only {choosing} of the attackers' records choose their own attack")
    if len(seeds) < 3:
        notes.append(f"{len(seeds)} seed(s): the intervals hardly cover the spread between attackers")
    missing = sorted(set(QUERIES) - set(attacker.queries) - {"foreign"})
    missing += ["foreign"] if foreign is None or "foreign" not in attacker.queries else []
    if missing:
        notes.append(f"ways to choose queries that were not tried: {', '.join(missing)}")
    return tuple(notes)
