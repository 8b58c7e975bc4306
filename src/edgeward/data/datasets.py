"""`DATASETS` and `load`: public data sets by name, dealt to roles by one rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from edgeward.core.randomness import Seed
from edgeward.core.registry import Registry
from edgeward.data.making import make_splits
from edgeward.data.partition import Sizes, deal_whole, without_duplicates
from edgeward.data.records import Records
from edgeward.data.splits import Splits


@final
@dataclass(frozen=True)
class Request:
    """What a loader may need: the data folder (None: EDGEWARD_DATA), a seed for generators, the sizes asked for."""

    root: Path | None
    seed: Seed
    train: int | None = None
    holdout: int | None = None


@final
@dataclass(frozen=True)
class Pools:
    """What a source holds before roles are dealt.

    Either `holdout` is the source's own test part, or it is None and `sizes` deals `train` to all four roles.
    `finish` encodes the columns once the training role is known.
    """

    train: Records
    holdout: Records | None
    classes: int
    validation: Records | None = None
    sizes: Sizes | None = None
    notes: tuple[str, ...] = ()
    finish: Callable[[Splits], Splits] | None = None


Loader = Callable[[Request], Pools]
DATASETS: Registry[Loader] = Registry("data set")


def load(
    name: str,
    *,
    seed: Seed,
    canaries: int = 200,
    train: int | None = None,
    holdout: int | None = None,
    root: Path | None = None,
) -> Splits:
    """Return a public data set as checked splits with canaries.

    `name` is a key of `DATASETS`; `train` and `holdout` are the numbers of records in those two roles (default: as many
    as there are, or the data set's customary sizes); `root` is the data folder (default: the environment variable
    EDGEWARD_DATA). Repeated inputs are dropped before dealing and their number is noted.

    Raises `ConfigError` for unknown names and sizes that do not fit, `DataError` for missing, altered or damaged files.

    >>> load("digits", seed=Seed(0)).counts()
    {'train': 900, 'validation': 197, 'holdout': 500, 'shadow': 200, 'canaries': 200}
    """
    source = DATASETS[name](Request(root, seed.child("source"), train, holdout))
    return split_pools(source, name=name, seed=seed, canaries=canaries, train=train, holdout=holdout, deduplicate=True)


def split_pools(
    source: Pools,
    *,
    name: str,
    seed: Seed,
    canaries: int,
    train: int | None = None,
    holdout: int | None = None,
    deduplicate: bool = False,
) -> Splits:
    """Deal the pools of a source to roles, make canaries, encode columns, check."""
    notes = source.notes
    if source.holdout is not None:
        splits = make_splits(
            source.train.named("train"),
            source.holdout,
            validation=source.validation,
            classes=source.classes,
            canaries=canaries,
            seed=seed,
            name=name,
            deduplicate=deduplicate,
            train_size=train,
            holdout_size=holdout,
            notes=notes,
        )
    else:
        pool, sizes = source.train, source.sizes
        if sizes is None:
            raise ValueError("pools without a holdout need sizes")
        if deduplicate:
            pool, dropped = without_duplicates(pool)
            notes += (f"{dropped} repeated records dropped before splitting",) if dropped else ()
        roles = deal_whole(pool.named(name), train=train, holdout=holdout, default=sizes, seed=seed.child("roles"))
        splits = make_splits(
            roles[0],
            roles[2],
            validation=roles[1],
            shadow=roles[3],
            classes=source.classes,
            canaries=canaries,
            seed=seed,
            name=name,
            notes=notes,
        )
    return source.finish(splits).check() if source.finish else splits
