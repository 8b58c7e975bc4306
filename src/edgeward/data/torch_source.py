"""`from_torch`: the user's own data as torch data sets of (x, y)."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from edgeward.core.errors import DataError
from edgeward.core.randomness import Seed
from edgeward.data.images import as_inputs
from edgeward.data.making import make_splits
from edgeward.data.records import Records
from edgeward.data.splits import Splits


def from_torch(
    train: Dataset[Any],
    holdout: Dataset[Any],
    *,
    seed: Seed,
    validation: Dataset[Any] | None = None,
    shadow: Dataset[Any] | None = None,
    classes: int | None = None,
    canaries: int = 200,
    name: str = "torch",
    train_size: int | None = None,
    holdout_size: int | None = None,
) -> Splits:
    """Read torch data sets of (x, y) into checked splits.

    Each item is a pair: `x` a tensor, array or PIL image of one shape throughout (bytes with two or more axes become
    [0, 1]; other numbers stay), `y` a whole number. The data sets are read once, in order, so a random augmentation is
    frozen at its first draw.

    Raises `DataError` naming the first item that cannot be read or differs in shape, and every problem of
    `Splits.check`; an input that is in both train and holdout is an error.
    """

    def read(dataset: Dataset[Any] | None, role: str) -> Records | None:
        return None if dataset is None else read_dataset(dataset, role)

    return make_splits(
        read_dataset(train, "train"),
        read_dataset(holdout, "holdout"),
        validation=read(validation, "validation"),
        shadow=read(shadow, "shadow"),
        classes=classes,
        canaries=canaries,
        seed=seed,
        name=name,
        train_size=train_size,
        holdout_size=holdout_size,
    )


def read_dataset(dataset: Dataset[Any], role: str) -> Records:
    """Return all items of a map-style data set as records."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        first, second = dataset.tensors
        bytes_like = first.dtype == torch.uint8
        return Records.of(as_inputs(first.detach().cpu().numpy()) if bytes_like else first, second, role)
    if not isinstance(dataset, Sized) or not hasattr(type(dataset), "__getitem__"):
        raise DataError(
            f"the {role} data set cannot be indexed",
            expected="a map-style torch Dataset with __len__ and __getitem__",
            came=type(dataset).__name__,
            fix="collect the records of an iterable data set in a TensorDataset",
        )
    inputs: list[np.ndarray] = []
    labels: list[int] = []
    for index in range(_length(dataset, role)):
        x, y = _item(dataset, index, role)
        if inputs and (x.shape, x.dtype) != (inputs[0].shape, inputs[0].dtype):
            raise _bad_item(
                role, index, f"{inputs[0].dtype} of shape {inputs[0].shape} as item 0", f"{x.dtype} of shape {x.shape}"
            )
        inputs.append(x)
        labels.append(y)
    stacked = np.stack(inputs) if inputs else np.zeros((0,), dtype=np.float32)
    return Records.of(as_inputs(stacked), np.array(labels, dtype=np.int64), role)


def _length(dataset: Sized, role: str) -> int:
    try:
        return len(dataset)
    except Exception as error:
        raise DataError(
            f"the {role} data set does not tell its length",
            expected="a whole number from __len__",
            came=type(error).__name__,
            fix="let __len__ return the number of records",
        ) from None


def _item(dataset: Any, index: int, role: str) -> tuple[np.ndarray, int]:
    try:
        item = dataset[index]
    except Exception as error:  # the data set's own message may quote the record
        raise _bad_item(role, index, "a pair (x, y)", f"{type(error).__name__} while reading it") from None
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise _bad_item(role, index, "a pair (x, y)", type(item).__name__)
    x, y = item
    try:
        array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        number = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    except Exception as error:
        raise _bad_item(role, index, "x and y that become arrays", type(error).__name__) from None
    if array.dtype.kind not in "fiub":
        raise _bad_item(role, index, "x of numbers", str(array.dtype))
    if number.dtype.kind not in "iub" or number.size != 1:
        raise _bad_item(role, index, "y a single whole number", f"{number.dtype} of shape {number.shape}")
    label = int(number.reshape(()))
    if not -(2**63) <= label < 2**63:
        raise _bad_item(role, index, "y a class number", "a number beyond 64 bits")
    return array, label


def _bad_item(role: str, index: int, expected: str, came: str) -> DataError:
    return DataError(
        f"item {index} of the {role} data set cannot be used",
        expected=expected,
        came=came,
        fix="let __getitem__ return (x, y) with x of one shape and y a class number",
    )
