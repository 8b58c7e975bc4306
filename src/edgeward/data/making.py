"""`make_splits`: from a training set and non-members to checked roles with canaries."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data.partition import deal, pair, tenth, without_duplicates
from edgeward.data.records import Records
from edgeward.data.splits import MAX_CLASSES, Splits


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
    if not deduplicate:
        _refuse_overlap(train, holdout, name)
    members: dict[str, Records | None] = {"train": train, "validation": validation}
    others: dict[str, Records | None] = {"holdout": holdout, "shadow": shadow}
    if deduplicate:
        given, dropped = _deduplicated({**members, **others})
        members, others = {r: given[r] for r in members}, {r: given[r] for r in others}
        notes += (f"{dropped} repeated records dropped before splitting",) if dropped else ()
    present = [r.y for r in {**members, **others}.values() if r is not None and len(r)]
    count = classes if classes is not None else max((int(y.max()) + 1 for y in present), default=0)
    train, validation = _two_roles(members, train_size, lambda n: tenth(n, count), seed.child("validation"), name)
    holdout, shadow = _two_roles(others, holdout_size, lambda n: max(1, round(0.3 * n)), seed.child("shadow"), name)
    sources, copies = _canaries(train, count, canaries, seed.child("canaries"), name)
    return Splits(
        name=name,
        classes=count,
        train=train.named("train"),
        validation=validation.named("validation"),
        holdout=holdout.named("holdout"),
        shadow=shadow.named("shadow"),
        canaries=copies,
        canary_sources=sources,
        notes=notes,
    ).check()


def _refuse_overlap(train: Records, holdout: Records, name: str) -> None:
    """Count the overlap of what was given, before parts of it are dealt to validation and shadow."""
    known = set(train.row_hashes)
    count = sum(row in known for row in holdout.row_hashes)
    if count:
        raise DataError(
            f"{count} of the {len(holdout)} holdout records are also in train ('{name}')",
            expected="non-members that no model was trained on",
            came=f"{count} inputs in both",
            fix="remove the overlap between train and holdout",
        )


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


def _two_roles(
    given: dict[str, Records | None], wanted: int | None, share: Callable[[int], int], seed: Seed, name: str
) -> tuple[Records, Records]:
    """Return the main role (first of `given`) and its companion, dealt from the main one unless it was given."""
    (main, pool), (companion, rest) = given.items()
    if pool is None:
        raise ValueError(f"no records for {main}")
    if rest is None:
        sizes = pair(len(pool), wanted, share(len(pool)), roles=(main, companion), name=name)
        first, second = deal(pool, sizes, seed)
        return first, second
    if wanted is None:
        return pool, rest
    if not 1 <= wanted <= len(pool):
        raise ConfigError(
            f"{main} = {wanted} does not fit '{name}'",
            expected=f"1 to {len(pool)}, the number of records given for {main}",
            came=str(wanted),
            fix="choose a smaller size",
        )
    return deal(pool, [wanted], seed)[0], rest


def _canaries(train: Records, classes: int, count: int, seed: Seed, name: str) -> tuple[Int64[Tensor, " c"], Records]:
    """Copy `count` training records with distinct inputs, each with a label uniform over the other classes in it."""
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
    if not len(train) or count == 0 or not 2 <= classes <= MAX_CLASSES:
        return torch.zeros(0, dtype=torch.int64), train.subset([], "canaries")
    present = train.classes
    if len(present) < 2:
        raise ConfigError(
            f"no canary can be mislabelled in '{name}'",
            expected="training records of at least two classes",
            came=f"all {len(train)} of class {int(present[0])}",
            fix="give training records of every class, or set canaries = 0",
        )
    generator = seed.torch()
    candidates = torch.tensor(list(first.values()), dtype=torch.int64)
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    sources = torch.sort(chosen).values
    # A shift by 1 .. classes - 1 reaches every other class with equal probability and never the right one. Only classes
    # that some record has: a label nobody else carries would give a canary away.
    shift = torch.randint(1, len(present), (count,), generator=generator)
    place = (train.y[sources, None] == present).int().argmax(1)
    wrong = present[(place + shift) % len(present)]
    return sources, Records(train.x[sources], wrong, "canaries")
