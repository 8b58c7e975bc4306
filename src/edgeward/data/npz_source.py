"""`from_npz`: the user's own data in one NumPy archive."""

from __future__ import annotations

from pathlib import Path

from edgeward.core.errors import DataError
from edgeward.core.randomness import Seed
from edgeward.data.datasets import Pools, split_pools
from edgeward.data.files import LIMIT, read_bounded
from edgeward.data.images import as_inputs
from edgeward.data.npz import read_npz
from edgeward.data.partition import quarters
from edgeward.data.records import Records
from edgeward.data.splits import Splits


def from_npz(
    path: Path,
    *,
    seed: Seed,
    classes: int | None = None,
    canaries: int = 200,
    train: int | None = None,
    holdout: int | None = None,
) -> Splits:
    """Read an .npz with arrays x, y (dealt by `seed`: 60 % training side) or x_train, y_train, x_test, y_test.

    uint8 arrays [n, H, W] and [n, H, W, C] become channels-first images in [0, 1]; other numbers stay. `train` and
    `holdout` limit the two roles. Objects are never unpickled; the archive is bounded to 4 GiB.

    Raises `DataError` where the archive is damaged or lacks the keys, and every problem of `Splits.check`.
    """
    arrays = read_npz(read_bounded(path, 4 * LIMIT), str(path))
    whole, parts = {"x", "y"} <= arrays.keys(), {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys()
    if not whole and not parts:
        raise DataError(
            f"the archive {str(path)!r} lacks the arrays",
            expected="x and y, or x_train, y_train, x_test and y_test",
            came=", ".join(sorted(arrays)) or "no arrays of numbers",
            fix="save it with numpy.savez_compressed(path, x_train=..., y_train=..., x_test=..., y_test=...)",
        )
    name = path.stem
    if parts:
        members, others = (Records.of(as_inputs(arrays[f"x_{p}"]), arrays[f"y_{p}"], p) for p in ("train", "test"))
        pools = Pools(members, others, classes=classes or largest_label(members, others) + 1)
    else:
        records = Records.of(as_inputs(arrays["x"]), arrays["y"], name)
        count = classes or largest_label(records) + 1
        pools = Pools(records, None, classes=count, sizes=quarters(records, count))
    return split_pools(pools, name=name, seed=seed, canaries=canaries, train=train, holdout=holdout)


def largest_label(*roles: Records) -> int:
    """Return the largest label of all roles, or -1 where there is none."""
    return max((int(r.y.max()) for r in roles if len(r)), default=-1)
