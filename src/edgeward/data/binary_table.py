"""`location30` and `purchase100`: a label 1, 2, ... and binary features a line."""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np

from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, damaged, locate, read_bounded, read_source, tar_member
from edgeward.data.partition import Sizes
from edgeward.data.records import Records

_LOCATION: Final = SourceFile(
    ("location30/dataset_location.tgz",),
    ("927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",),
    "privacytrustlab/datasets on GitHub, dataset_location.tgz",
)
_PURCHASE: Final = SourceFile(
    ("purchase100/dataset_purchase.tgz", "purchase100/dataset_purchase"),
    (),
    "privacytrustlab/datasets on GitHub, dataset_purchase.tgz",
)


def parse_binary_table(content: bytes, name: str, *, columns: int, classes: int, rows: int | None = None) -> Records:
    """Return records of a text table whose lines are a label 1 .. `classes` (maybe quoted) and `columns` bits.

    Raises `DataError` naming what differs: the number of columns or rows, the labels, a value that is no bit.
    """
    expected = f"lines of a label 1 to {classes} and {columns} bits, comma-separated"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = io.StringIO(content.replace(b'"', b"").decode("ascii"))
            table = np.loadtxt(text, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
    except Exception as error:  # the parser's messages quote the line: keep only their kind
        raise damaged(name, expected, type(error).__name__) from None
    if table.shape[1] != columns + 1 or (rows is not None and len(table) != rows):
        came = f"{len(table)} lines of {table.shape[1]} values"
        raise damaged(name, expected if rows is None else f"{rows} {expected}", came)
    bits, labels = table[:, 1:], table[:, 0]
    whole = bool(np.isin(bits, (0.0, 1.0)).all()) and bool(np.isin(labels, np.arange(1, classes + 1)).all())
    if not whole:
        raise damaged(name, expected, "other labels or values")
    return Records.of(bits, labels.astype(np.int64) - 1, name)


@DATASETS.register("location30")
def location30(request: Request) -> Pools:
    """Return Location-30: 5010 users of Bangkok, 446 visited-place bits, 30 clusters as classes.

    Roles by default: 1500 / 300 / 1500 / 1710. Source: Shokri et al., IEEE S&P 2017, section VI-A.
    """
    content = tar_member(read_source(request.root, _LOCATION), ("bangkok",), _LOCATION.paths[0])
    records = parse_binary_table(content, "location30", columns=446, classes=30)
    return Pools(records, None, classes=30, sizes=Sizes(train=1500, validation=300, holdout=1500, shadow=1710))


@DATASETS.register("purchase100")
def purchase100(request: Request) -> Pools:
    """Return Purchase-100: 197324 shoppers, 600 bought-product bits, 100 clusters as classes.

    Roles by default: 20000 / 2000 / 20000 / 20000. No digest of the file is in the table: it is accepted by its size,
    labels and bits, and a note says so. Source: Shokri et al., IEEE S&P 2017, section VI-A.
    """
    path = locate(request.root, _PURCHASE)
    data = read_source(request.root, _PURCHASE) if path is None or path.suffix == ".tgz" else read_bounded(path)
    content = data if path is not None and path.suffix != ".tgz" else tar_member(data, ("dataset_purchase",), str(path))
    records = parse_binary_table(content, "purchase100", columns=600, classes=100, rows=197324)
    sizes = Sizes(train=20000, validation=2000, holdout=20000, shadow=20000)
    note = "Purchase-100: accepted by size, labels and bits, no checksum in the table"
    return Pools(records, None, classes=100, sizes=sizes, notes=(note,))
