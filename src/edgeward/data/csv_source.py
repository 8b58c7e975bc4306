"""`from_csv`: the user's own table, with numbers standardised and categories one-hot."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data.columns import Columns, as_number
from edgeward.data.datasets import Pools, split_pools
from edgeward.data.files import damaged, read_bounded
from edgeward.data.partition import quarters
from edgeward.data.records import Records
from edgeward.data.splits import Splits

MISSING: Final = ("", "?", "na", "n/a", "nan", "null", "none")
MAX_CATEGORIES: Final = 1000
MAX_ROWS: Final = 2**22
FILE_LIMIT: Final = 2**28
MEMORY_LIMIT: Final = 2**34
LISTED: Final = 20


@final
@dataclass(frozen=True, repr=False)
class _Table:
    header: tuple[str, ...]
    rows: list[list[str]]


def from_csv(
    path: Path,
    *,
    label: str,
    seed: Seed,
    holdout_path: Path | None = None,
    ignore: Sequence[str] = (),
    canaries: int = 200,
    train: int | None = None,
    holdout: int | None = None,
) -> Splits:
    """Read a comma-separated table; the column `label` holds the classes, `ignore` is left out.

    The first line must be a header: distinct names, none a number (errors show these names).

    Rows are dealt by `seed` (60 % training side), or the non-members come from `holdout_path`. A column of numbers
    becomes (value - mean) / deviation, any other one 0/1 feature a category, both fitted on the training role alone.
    Classes are numbered in sorted order (as numbers where all of them are).

    Raises one `DataError` with all rows of the wrong length, one with all missing values ('?', empty, NA, ...), and
    every problem of `Splits.check`. No message shows a cell below the header.
    """
    table = _read(path)
    other = _read(holdout_path) if holdout_path is not None else _Table(table.header, [])
    if other.header != table.header:
        raise DataError(
            f"the header of {str(holdout_path)!r} differs",
            expected=f"the {len(table.header)} column names of {str(path)!r} in their order",
            came=f"{len(other.header)} column names",
            fix="save both tables with the same columns",
        )
    target = _column(table, label, path)
    dropped = {target, *(_column(table, name, path) for name in ignore)}
    kept = [j for j in range(len(table.header)) if j not in dropped]
    rows = table.rows + other.rows
    _refuse_missing(table.header, rows, [*kept, target], path)
    numeric = [all(as_number(row[j]) is not None for row in rows) for j in kept]
    _refuse_wide(table.header, rows, [j for j, number in zip(kept, numeric, strict=True) if not number], len(kept))
    columns, codes = Columns.code([[row[j] for j in kept] for row in rows], numeric)
    labels, classes = _classes([row[target] for row in rows])
    members = Records.of(codes[: len(table.rows)], labels[: len(table.rows)], "train")
    if holdout_path is not None:
        others = Records.of(codes[len(table.rows) :], labels[len(table.rows) :], "holdout")
        pools = Pools(members, others, classes=classes, finish=columns.encode)
    else:
        pools = Pools(members, None, classes=classes, sizes=quarters(members, classes), finish=columns.encode)
    return split_pools(pools, name=path.stem, seed=seed, canaries=canaries, train=train, holdout=holdout)


def _read(path: Path) -> _Table:
    try:
        text = read_bounded(path, FILE_LIMIT).decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        found = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(str(path), "comma-separated text in UTF-8", type(error).__name__) from None
    header = tuple(found[0][1]) if found else ()
    rows = found[1:]
    # A first line with a number in it is a record, whose cells must not be shown.
    named = len(header) >= 2 and all(cell and as_number(cell) is None for cell in header)
    if not named or len(set(header)) < len(header):
        raise DataError(
            f"the table {str(path)!r} has no header",
            expected="a first line of at least two distinct column names, none empty or a number",
            came="an empty file" if not header else f"{len(header)} cells, some empty, repeated or numbers",
            fix="add a line with the column names",
        )
    if not rows or len(rows) > MAX_ROWS:
        raise DataError(
            f"the table {str(path)!r} has {len(rows)} rows",
            expected=f"1 to {MAX_ROWS} rows below the header",
            came=str(len(rows)),
            fix="give rows, or a sample of them",
        )
    odd = [number for number, row in rows if len(row) != len(header)]
    if odd:
        raise DataError(
            f"{len(odd)} rows of {str(path)!r} have the wrong number of cells",
            expected=f"{len(header)} cells as in the header",
            came=f"others in line {_numbers(odd)}",
            fix="quote cells that contain a comma, and fill or remove these lines",
        )
    return _Table(header, [row for _, row in rows])


def _column(table: _Table, name: str, path: Path) -> int:
    if name in table.header:
        return table.header.index(name)
    near = difflib.get_close_matches(name, table.header, n=1, cutoff=0.6)
    raise ConfigError(
        f"the table {str(path)!r} has no column '{name}'",
        expected=f"one of the {len(table.header)} column names of its header",
        came=repr(name),
        fix=f"did you mean '{near[0]}'?" if near else "name a column as in the first line of the table",
    )


def _refuse_missing(header: Sequence[str], rows: list[list[str]], used: Sequence[int], path: Path) -> None:
    found = [(header[j], sum(row[j].lower() in MISSING for row in rows)) for j in used]
    missing = [f"{name} ({count})" for name, count in found if count]
    if missing:
        raise DataError(
            f"values are missing in {len(missing)} columns of {str(path)!r}",
            expected="a value in every cell",
            came=", ".join(missing),
            fix="impute or remove them, or leave the columns out with ignore=[...]",
        )


def _refuse_wide(header: Sequence[str], rows: list[list[str]], categorical: Sequence[int], columns: int) -> None:
    counts = [(header[j], len({row[j] for row in rows})) for j in categorical]
    wide = [f"{name} ({count})" for name, count in counts if count > MAX_CATEGORIES]
    if wide:
        raise DataError(
            f"{len(wide)} columns have too many categories",
            expected=f"at most {MAX_CATEGORIES} different values in a column that is not of numbers",
            came=", ".join(wide),
            fix="leave names and identifiers out with ignore=[...], or group the values",
        )
    features = columns - len(counts) + sum(count for _, count in counts)
    if features == 0 or features * len(rows) * 4 > MEMORY_LIMIT:
        raise DataError(
            f"the table encodes to {features} features",
            expected=f"at least 1, and at most {MEMORY_LIMIT} bytes for {len(rows)} rows",
            came=f"{features * len(rows) * 4} bytes",
            fix="name columns to keep or leave out with ignore=[...], or give a sample of the rows",
        )


def _classes(cells: Sequence[str]) -> tuple[np.ndarray, int]:
    numbers = [as_number(cell) for cell in cells]
    keys: list[float] | list[str] = [n for n in numbers if n is not None]
    if len(keys) < len(cells):
        keys = list(cells)
    table, position = np.unique(np.array(keys), return_inverse=True)
    if len(table) > MAX_CATEGORIES:
        raise DataError(
            "the label column does not hold classes",
            expected=f"at most {MAX_CATEGORIES} different labels",
            came=f"{len(table)} different values in {len(cells)} rows",
            fix="bin the values into classes; edgeward audits classifiers only",
        )
    return position.reshape(-1).astype(np.int64), len(table)


def _numbers(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:LISTED])) + (f" and {len(lines) - LISTED} more" if len(lines) > LISTED else "")
