"""Dealing records to roles: seeded, disjoint, and with equal inputs kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.data.records import Records


@final
@dataclass(frozen=True)
class Sizes:
    """How many records each role gets."""

    train: int
    validation: int
    holdout: int
    shadow: int


def deal(records: Records, counts: Sequence[int], seed: Seed) -> list[Records]:
    """Return disjoint random subsets of about `counts` records, dealt in a seeded order.

    Equal inputs go to one subset, so a count is exceeded by at most the copies of one record; without copies the
    counts are exact. Records left over are in no subset. Cost: one hash per record.
    """
    order, group = _order(records, seed)
    found, start = [], 0
    for count in counts:
        stop = min(start + count, len(order))
        while count and start < stop < len(order) and group[order[stop]] == group[order[stop - 1]]:
            stop += 1
        found.append(records.subset(np.sort(order[start:stop])))
        start = stop
    return found


def _order(records: Records, seed: Seed) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return a seeded order in which equal inputs are neighbours, and each record's group number."""
    numbers: dict[bytes, int] = {}
    group = np.array([numbers.setdefault(h, len(numbers)) for h in records.row_hashes], dtype=np.int64)
    rank = seed.numpy().permutation(len(numbers))
    return np.argsort(rank[group], kind="stable").astype(np.int64) if len(group) else group, group


def without_duplicates(records: Records, *others: Records) -> tuple[Records, int]:
    """Return the first copy of every input that is in none of `others`, and how many records were dropped."""
    seen = {h for other in others for h in other.row_hashes}
    keep = []
    for index, row in enumerate(records.row_hashes):
        if row not in seen:
            seen.add(row)
            keep.append(index)
    return (records if len(keep) == len(records) else records.subset(keep)), len(records) - len(keep)


def tenth(count: int, classes: int) -> int:
    """Return the size of a validation role for `count` training records: a tenth, but one a class where it fits."""
    return max(-(-count // 10), min(classes, count // 4), 1)


def pair(pool: int, wanted: int | None, share: int, *, roles: tuple[str, str], name: str) -> tuple[int, int]:
    """Return how many of `pool` records the main role and its companion get.

    With `wanted` None the companion gets `share` and the main role the rest; else the main role gets exactly `wanted`
    and the companion its proportional share, at least one, of what is left.
    """
    if wanted is None:
        companion = min(share, max(pool - 1, 0))
        return pool - companion, companion
    if not 1 <= wanted <= pool - 1:
        raise ConfigError(
            f"{roles[0]} = {wanted} does not fit '{name}'",
            expected=f"1 to {max(pool - 1, 0)}: {roles[0]} and {roles[1]} share {pool} distinct records",
            came=str(wanted),
            fix=f"choose {roles[0]} = {max(pool - share, 1)} or fewer",
        )
    rest = max(1, round(wanted * share / max(pool - share, 1)))
    return wanted, min(pool - wanted, rest)


def deal_whole(
    records: Records, *, train: int | None, holdout: int | None, default: Sizes, seed: Seed
) -> tuple[Records, Records, Records, Records]:
    """Deal one pool to train, validation, holdout and shadow; a size that is not given keeps its default.

    Raises `ConfigError` where the pool is too small.
    """
    validation = default.validation if train is None else max(1, -(-train // 10))
    shadow = default.shadow if holdout is None else max(1, -(-3 * holdout // 7))
    counts = (default.train if train is None else train, validation, default.holdout if holdout is None else holdout)
    asked = sum(counts) + shadow
    if min(counts) < 1 or asked > len(records):
        raise ConfigError(
            f"the sizes do not fit '{records.name}'",
            expected=f"positive sizes that sum to at most {len(records)}, the number of distinct records",
            came=f"train {counts[0]} + validation {validation} + holdout {counts[2]} + shadow {shadow} = {asked}",
            fix="give smaller train and holdout; validation takes a tenth of train, shadow three sevenths of holdout",
        )
    dealt = deal(records, [*counts, shadow], seed)
    return dealt[0], dealt[1], dealt[2], dealt[3]


def quarters(records: Records, classes: int) -> Sizes:
    """Return the default sizes for one pool of the user's: 60 % training side, 40 % non-member side."""
    members = max(1, round(0.6 * len(records)))
    validation, others = tenth(members, classes), len(records) - members
    shadow = round(0.3 * others)
    return Sizes(max(members - validation, 1), validation, max(others - shadow, 1), max(shadow, 1))
