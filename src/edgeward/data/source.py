"""`load_source`: one text names any source: a public data set, an archive, a table, a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeward.core.errors import ConfigError, DataError, unknown_name
from edgeward.core.randomness import Seed
from edgeward.data.csv_source import from_csv
from edgeward.data.datasets import DATASETS, load
from edgeward.data.files import is_file, is_folder
from edgeward.data.folder_source import from_image_folder
from edgeward.data.npz_source import from_npz
from edgeward.data.splits import Splits


def load_source(
    text: str,
    *,
    seed: Seed,
    canaries: int = 200,
    train: int | None = None,
    holdout: int | None = None,
    label: str | None = None,
    ignore: Sequence[str] = (),
    size: Sequence[int] = (32, 32),
    grey: bool = False,
    root: Path | None = None,
) -> Splits:
    """Return the splits of the source named by `text`.

    A key of `DATASETS` is loaded from `root` (or EDGEWARD_DATA); `*.npz`, `*.csv` (needs `label`; leaves
    out the columns `ignore`) and folders of pictures (resized to `size`, one channel if `grey`) are the user's own.
    `train` and `holdout` limit the two roles. Options may come from a job file as they are: wrong types are reported.

    Raises `ConfigError` with the nearest name for anything else, `DataError` as the loaders do.
    """
    _check_options(canaries, train, holdout, label, ignore, size, grey)
    if text in DATASETS:
        return load(text, seed=seed, canaries=canaries, train=train, holdout=holdout, root=root)
    path, suffix = Path(text), Path(text).suffix.lower()
    if "\0" in text or not text.strip():
        raise unknown_name("data set", text, DATASETS)
    if suffix == ".npz":
        return from_npz(_existing(path), seed=seed, canaries=canaries, train=train, holdout=holdout)
    if suffix == ".csv":
        if label is None:
            raise ConfigError(
                f"the table {text!r} needs a label column",
                expected="the name of the column that holds the classes",
                came="no label",
                fix="give label = 'column name'",
            )
        return from_csv(
            _existing(path), label=label, ignore=ignore, seed=seed, canaries=canaries, train=train, holdout=holdout
        )
    if is_folder(path):
        sides = (size[0], size[1])
        return from_image_folder(
            path, seed=seed, size=sides, grey=grey, canaries=canaries, train=train, holdout=holdout
        )
    if "/" in text or "\\" in text or suffix:
        raise DataError(
            f"no data at {text!r}",
            expected="an existing .npz, .csv or folder of pictures, or a data set's name: " + ", ".join(DATASETS),
            came="another kind of file" if is_file(path) else "no such file or folder",
            fix="check the path",
        )
    raise unknown_name("data set", text, DATASETS)


def _check_options(canaries: Any, train: Any, holdout: Any, label: Any, ignore: Any, size: Any, grey: Any) -> None:
    def count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def some(value: Any, many: Callable[[Any], bool]) -> bool:
        return isinstance(value, (list, tuple)) and all(many(v) for v in value)

    wrong = {
        f"canaries = {canaries!r}: expected a whole number": not count(canaries),
        f"train = {train!r}: expected a whole number": train is not None and not count(train),
        f"holdout = {holdout!r}: expected a whole number": holdout is not None and not count(holdout),
        f"label = {label!r}: expected a column name": label is not None and not isinstance(label, str),
        f"ignore = {ignore!r}: expected a list of column names": not some(ignore, lambda v: isinstance(v, str)),
        f"size = {size!r}: expected [height, width]": not some(size, count) or len(size) != 2,
        f"grey = {grey!r}: expected true or false": not isinstance(grey, bool),
    }
    found = [text for text, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ConfigError("the options of the data source cannot be used:\n    " + "\n    ".join(found))


def _existing(path: Path) -> Path:
    if is_folder(path):
        raise DataError(f"{str(path)!r} is a folder", expected="a file", came="a folder", fix="name the file itself")
    return path
