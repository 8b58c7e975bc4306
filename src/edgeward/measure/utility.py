"""Utility of an executable on labelled records: accuracy with its exact interval, confusion, accuracy per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError, ModelError
from edgeward.core.interval import Estimate

Run: TypeAlias = Callable[[np.ndarray], np.ndarray]
Records: TypeAlias = np.ndarray | Tensor


def logits(executable: Executable | Run, x: Records, *, chunk: int = 1024) -> Float[np.ndarray, "n classes"]:
    """Return the logits [n, classes] of records `x` [n, ...], `chunk` records at a time.

    Raises `ModelError` for NaN, +infinity, rows without any finite logit, or a shape that is not one row per record.
    """
    records = np.ascontiguousarray(_array(x), dtype=np.float32)
    if len(records) == 0:
        raise DataError("there are no records", expected="at least one", came="0", fix="check the split's counts")
    run = executable.run if isinstance(executable, Executable) else executable
    pieces = [_answer(run, records[i : i + chunk], i) for i in range(0, len(records), chunk)]
    return np.concatenate(pieces)


def _answer(run: Run, records: np.ndarray, first: int) -> np.ndarray:
    answer = np.asarray(run(records), dtype=np.float32)
    if answer.ndim != 2 or len(answer) != len(records) or answer.shape[1] < 1:
        raise ModelError(
            "the model does not return one row of logits per record",
            expected=f"shape ({len(records)}, classes)",
            came=f"shape {answer.shape}",
            fix="let the network end in one logit per class, without a reduction over the batch",
        )
    # -inf is a legitimate "never this class"; a row of nothing else is not an answer
    bad = np.isnan(answer).any(1) | np.isposinf(answer).any(1) | np.isneginf(answer).all(1)
    if bad.any():
        raise ModelError(
            f"the model returns NaN or infinite logits for {int(bad.sum())} of {len(answer)} records",
            expected="finite logits",
            came=f"record {first + int(bad.argmax())}: {answer[int(bad.argmax())][:8].tolist()}",
            fix="check the weights with `Network.finite` and the inputs for NaN, or lower the learning rate",
        )
    return answer


def accuracy(executable: Executable | Run, x: Records, y: Records) -> Estimate:
    """Return the share of records whose largest logit is at their label, with its 95 % Clopper-Pearson interval.

    Shapes: x [n, ...], y [n]. Of equal logits the first counts.
    """
    answer = logits(executable, x)
    labels = _labels(y, *answer.shape)
    return Estimate.proportion(int((answer.argmax(1) == labels).sum()), len(labels))


def confusion(executable: Executable | Run, x: Records, y: Records) -> Int[np.ndarray, "classes classes"]:
    """Return the counts [label, prediction]."""
    answer = logits(executable, x)
    labels = _labels(y, *answer.shape)
    counts = np.zeros((answer.shape[1], answer.shape[1]), dtype=np.int64)
    np.add.at(counts, (labels, answer.argmax(1)), 1)
    return counts


def per_class_accuracy(counts: Int[np.ndarray, "classes classes"]) -> tuple[Estimate | None, ...]:
    """Return each label's accuracy from a confusion matrix; None for a label without records.

    >>> [str(e) for e in per_class_accuracy(np.array([[8, 2], [0, 0]]))]
    ['80.0% [44.4%, 97.5%]', 'None']
    """
    totals = counts.sum(1)
    return tuple(
        Estimate.proportion(int(counts[label, label]), int(total)) if total else None
        for label, total in enumerate(totals)
    )


def _labels(y: Records, records: int, classes: int) -> np.ndarray:
    labels = _array(y)
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (records,) or not whole or labels.min() < 0 or labels.max() >= classes:
        bounds = f", values {labels.min()} to {labels.max()}" if labels.size else ""
        raise DataError(
            "the labels do not fit the records and the model",
            expected=f"{records} whole numbers from 0 to {classes - 1}",
            came=f"shape {labels.shape} of {labels.dtype}{bounds}",
            fix="pass one label per record, numbered from 0, and a model with one logit per class",
        )
    return labels


def _array(values: Records) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
