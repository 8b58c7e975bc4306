"""The strongest of many attacks, corrected for having been chosen: chosen on some records, judged on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from edgeward.attacks.clustered import share
from edgeward.attacks.clusters import Clusters
from edgeward.attacks.influence import Linear, area, passing, rank_at, tpr
from edgeward.attacks.metrics import Curve
from edgeward.attacks.scored import Scored
from edgeward.core.errors import ConfigError, DataError
from edgeward.core.measurement import Strongest
from edgeward.core.randomness import Seed

FPR = 0.01
HALVINGS = 10


def strongest(scored: Scored, *, seed: Seed | None = None, halvings: int = HALVINGS) -> Strongest:
    """Return the strongest attack by TPR at 1 % FPR, then AUC; see `worst`, of which this is the case of one kind."""
    return worst({"": scored}, seed=seed, halvings=halvings)[1]


def worst(
    kinds: Mapping[str, Scored], *, seed: Seed | None = None, halvings: int = HALVINGS
) -> tuple[Mapping[str, Strongest], Strongest]:
    """Return the strongest attack on each kind of records, and the strongest on the worst kind.

    In hindsight the largest of many rates favours the attacker: of 22 attacks that find nothing, the luckiest does not
    show 1 %. The corrected value lets every half of the record groups, of `halvings` random halvings, choose the attack
    (and the kind) with the largest TPR at 1 % FPR there, judges the choice on the other half, and takes the mean.

    Guarantee: measured (benchmark `interval-coverage`): the interval covers the mean TPR of the attacks so chosen,
    which is at most that of the strongest. The halves share their models, whose effects on the choice stay.
    Cost: one sort per attack, a count per attack and half. Random halvings by `seed`; the records' order is immaterial.
    Raises: `DataError` for a kind with fewer than two record groups, or none at all.
    """
    few = [kind for kind, scored in kinds.items() if scored.clusters.record.max() < 1]
    if few or not kinds or halvings < 1:
        error = ConfigError if halvings < 1 else DataError
        raise error(
            "the strongest attack cannot be chosen on one half of the records and judged on the other",
            expected="at least one kind, two groups of records in each, one halving",
            came=f"{len(kinds)} kinds, {halvings} halvings; too few groups in: {', '.join(few) or 'none'}",
            fix="audit at least two groups of records",
        )
    contest = _Contest.of(kinds)
    turns = contest.turns((seed or Seed(0)).numpy(), halvings)
    found = {kind: contest.summed(kind, [turn[kind] for turn in turns]) for kind in kinds}
    leader = max(found, key=lambda kind: (found[kind].hindsight, found[kind].corrected.value))
    chosen = [max(turn.values(), key=lambda choice: choice.reached) for turn in turns]
    over_all = contest.summed(leader, chosen) if len(kinds) > 1 else found[leader]
    return found, replace(over_all, attacks=sum(result.attacks for result in found.values()))


@final
@dataclass(frozen=True, eq=False)
class _Choice:
    """What one half chose: the kind, what the attack reached there, and its rate on the other half's trials."""

    kind: str
    reached: float
    rate: Linear
    judged: Bool[np.ndarray, " t"]


@final
@dataclass(frozen=True, eq=False)
class _Kind:
    """One kind with its trials flattened: scores by attack, truth, and group and model numbers that all kinds share."""

    scores: Mapping[str, Float64[np.ndarray, " t"]]
    rising: Mapping[str, Int[np.ndarray, " t"]]
    truth: Bool[np.ndarray, " t"]
    clusters: Clusters
    ranked: Int[np.ndarray, " g"]

    def turn(self, kind: str, choosing: Bool[np.ndarray, " t"]) -> _Choice:
        """Choose on some trials, judge on the rest."""
        reached = {name: self._reached(name, choosing) for name in self.scores}
        most = max(reached.values())
        tied = [name for name, value in reached.items() if value == most]
        by_area = {n: area(self.scores[n][choosing], self.truth[choosing]).value if len(tied) > 1 else 0 for n in tied}
        best = max(tied, key=lambda name: (by_area[name], name))
        judged = ~choosing
        rate = tpr(self.scores[best][judged], self.truth[judged], FPR, self.clusters.of_some(judged))
        return _Choice(kind, most, rate, judged)

    def _reached(self, name: str, choosing: Bool[np.ndarray, " t"]) -> float:
        order = self.rising[name]
        order = order[choosing[order]]
        scores, truth = self.scores[name][order], self.truth[order]
        rivals = scores[~truth]
        return float(passing(scores[truth], rivals, rank_at(FPR, len(rivals))).mean())

    def hindsight(self) -> tuple[str, float]:
        """Return the attack of largest TPR at 1 % FPR (ties: AUC), and this TPR."""
        curves = {
            name: Curve.of_sorted(self.scores[name][o[::-1]], self.truth[o[::-1]]) for name, o in self.rising.items()
        }
        rates = {name: curve.tpr_at(FPR).value for name, curve in curves.items()}
        most = max(rates.values())
        tied = [name for name, rate in rates.items() if rate == most]
        return min(tied, key=lambda name: (-area(self.scores[name], self.truth).value, name)), most


@final
@dataclass(frozen=True, eq=False)
class _Contest:
    """All kinds on one numbering of groups and models."""

    kinds: Mapping[str, _Kind]

    @classmethod
    def of(cls, kinds: Mapping[str, Scored]) -> _Contest:
        """Number groups and models over all kinds: those without numbers of their own get fresh ones."""
        shapes = [scored.truth.shape for scored in kinds.values()]
        models = _numbered([scored.models for scored in kinds.values()], [shape[0] for shape in shapes])
        groups = _numbered([scored.groups for scored in kinds.values()], [shape[1] for shape in shapes])
        found = {}
        for (kind, scored), model, group in zip(kinds.items(), models, groups, strict=True):
            rows, columns = scored.truth.shape
            flat = {name: scores.flatten().numpy() for name, scores in scored.scores.items()}
            clusters = Clusters(np.repeat(model, columns), np.tile(group, rows))
            rising = {name: np.argsort(scores) for name, scores in flat.items()}
            found[kind] = _Kind(flat, rising, scored.truth.flatten().numpy(), clusters, _ranked(scored, group))
        return cls(found)

    def turns(self, generator: np.random.Generator, halvings: int) -> list[dict[str, _Choice]]:
        """Let both halves of every halving choose, for each kind."""
        size = 1 + max(int(kind.clusters.record.max()) for kind in self.kinds.values())
        found = []
        for _ in range(halvings):
            half = np.zeros(size, dtype=np.int8)
            for kind in self.kinds.values():
                free = kind.ranked[half[kind.ranked] == 0]
                sides = generator.permutation(np.arange(len(free)) % 2)
                half[free] = np.where(sides == 0, -1, 1)
            for side in (-1, 1):
                trials = {name: half[kind.clusters.record] == side for name, kind in self.kinds.items()}
                found.append({name: kind.turn(name, trials[name]) for name, kind in self.kinds.items()})
        return found

    def summed(self, leader: str, choices: list[_Choice]) -> Strongest:
        """Return the mean over what was chosen; `leader` is the kind of largest rate in hindsight."""
        influence = {name: np.zeros(len(kind.truth)) for name, kind in self.kinds.items()}
        for choice in choices:
            influence[choice.kind][choice.judged] += choice.rate.influence / len(choices)
        used = [name for name in self.kinds if any(choice.kind == name for choice in choices)]
        clusters = Clusters(
            np.concatenate([self.kinds[name].clusters.model for name in used]),
            np.concatenate([self.kinds[name].clusters.record for name in used]),
        )
        mean = float(np.mean([choice.rate.value for choice in choices]))
        rate = Linear(mean, np.concatenate([influence[name] for name in used]))
        kind = self.kinds[leader]
        name, hindsight = kind.hindsight()
        return Strongest(name, hindsight, share(rate, clusters, int(kind.truth.sum())), len(kind.scores), leader)


def _numbered(given: Sequence[Tensor | None], sizes: Sequence[int]) -> list[Int[np.ndarray, " c"]]:
    """Return numbers 0, 1, ...: equal ones where the given ones are equal, fresh ones where none were given."""
    known = [ids.numpy() for ids in given if ids is not None]
    fresh = 1 + max((int(ids.max()) for ids in known), default=-1)
    found = []
    for ids, size in zip(given, sizes, strict=True):
        found.append(np.arange(fresh, fresh + size) if ids is None else ids.numpy())
        fresh += size if ids is None else 0
    dense = np.unique(np.concatenate(found), return_inverse=True)[1].reshape(-1)
    return np.split(dense, np.cumsum(sizes)[:-1])


def _ranked(scored: Scored, group: Int[np.ndarray, " n"]) -> Int[np.ndarray, " g"]:
    """Return a kind's groups in an order told by their scores and membership, not by their places."""
    truth = scored.truth.numpy()
    keys = [*truth]
    for name in sorted(scored.scores, reverse=True):
        # Sorted before they are added: the models' order must not change the last digit.
        columns = np.sort(np.where(truth, scored.scores[name].numpy(), 0.0), axis=0)
        keys += [np.sort(scored.scores[name].numpy(), axis=0).sum(0), columns.sum(0)]
    order = np.lexsort(keys)
    _, first = np.unique(group[order], return_index=True)
    return group[order][np.sort(first)]
