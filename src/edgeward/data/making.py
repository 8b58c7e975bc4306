"""`make_splits`: from a training set and non-members to checked roles with canaries."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.data.partition import deal, pair, tenth, without_duplicates
from edgeward.data.records import Records
from edgeward.data.splits import Splits


def make_splits(
    train: Records,
    holdout: Records,
    *,
    validation: Records | None = None,
    shadow: Records | None = None,
    classes: int | None = None,
    canaries: int = 200,
    seed: Seed,
    name: str,
    deduplicate: bool = False,
    train_size: int | None = None,
    holdout_size: int | None = None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Build checked splits from members and non-members.

    `validation` is a tenth of `train` and `shadow` 30 % of `holdout` unless given; `classes` is the largest label + 1
    unless given. `train_size` and `holdout_size` draw that many records for the two roles. `deduplicate` drops repeated
    inputs (the first copy stays; train before validation, holdout, shadow) and notes how many; without it a record in
    two roles is an error. Equal seeds and records give equal splits.

    Raises `ConfigError` for sizes that do not fit and one `DataError` with every problem of the data.
    """
    given = {"train": train, "validation": validation, "holdout": holdout, "shadow": shadow}
    if deduplicate:
        given, dropped = _deduplicated(given)
        notes += (f"{dropped} repeated records dropped before splitting",) if dropped else ()
    members, others = given["train"] or train, given["holdout"] or holdout
    present = [records.y for records in given.values() if records is not None and len(records)]
    count = classes if classes is not None else max((int(y.max()) + 1 for y in present), default=0)
    train, validation = _halves(
        members, given["validation"], train_size, tenth(len(members), count), seed.child("validation"), name
    )
    third = max(1, round(0.3 * len(others)))
    holdout, shadow = _halves(others, given["shadow"], holdout_size, third, seed.child("shadow"), name)
    sources, copies = _canaries(train, count, canaries, seed.child("canaries"), name)
    roles = (r.named(role) for r, role in ((train, "train"), (validation, "validation"), (holdout, "holdout")))
    return Splits(name, count, *roles, shadow.named("shadow"), copies, sources, notes).check()


def _deduplicated(given: dict[str, Records | None]) -> tuple[dict[str, Records | None], int]:
    kept: list[Records] = []
    found: dict[str, Records | None] = {}
    total = 0
    for role, records in given.items():
        if records is None:
            found[role] = None
            continue
        unique, dropped = without_duplicates(records, *kept)
        kept.append(unique)
        found[role], total = unique, total + dropped
    return found, total


def _halves(
    pool: Records, companion: Records | None, wanted: int | None, share: int, seed: Seed, name: str
) -> tuple[Records, Records]:
    """Return the main role and its companion, the second dealt from `pool` unless it was given."""
    roles = ("train", "validation") if seed == seed and pool.name == "train" else (pool.name, "its companion")
    if companion is None:
        sizes = pair(len(pool), wanted, share, roles=roles, name=name)
        main, rest = deal(pool, sizes, seed)
        return main, rest
    if wanted is None or wanted == len(pool):
        return pool, companion
    if not 1 <= wanted <= len(pool):
        raise ConfigError(
            f"{roles[0]} = {wanted} does not fit '{name}'", expected=f"1 to {len(pool)}", fix="choose a smaller size"
        )
    return deal(pool, [wanted], seed)[0], companion


def _canaries(
    train: Records, classes: int, count: int, seed: Seed, name: str
) -> tuple[Int64[Tensor, " c"], Records]:
    """Choose `count` training records with distinct inputs and copy them with a wrong label, uniform over the others."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(train.row_hashes):
        first.setdefault(row, index)
    fits = min(len(train) // 3, len(first))
    if len(train) and not 0 <= count <= fits:
        raise ConfigError(
            f"canaries = {count} do not fit '{name}'",
            expected=f"0 to {fits}: at most a third of the {len(train)} training records, all with distinct inputs",
            came=str(count),
            fix=f"set canaries = {fits} or give more training records",
        )
    if not len(train) or count == 0 or classes < 2:
        return torch.zeros(0, dtype=torch.int64), train.subset([], "canaries")
    generator = seed.torch()
    candidates = torch.tensor(list(first.values()), dtype=torch.int64)
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    sources = torch.sort(chosen).values
    # A shift by 1 .. classes - 1 reaches every other class with equal probability and never the right one.
    shift = torch.randint(1, classes, (count,), generator=generator)
    return sources, Records(train.x[sources], (train.y[sources] + shift) % classes, "canaries")
