"""`Records`: one role's inputs and labels, with digests and row hashes, and a repr that shows no record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from edgeward.core.errors import DataError


@final
@dataclass(frozen=True, eq=False, repr=False)
class Records:
    """Inputs x [n, ...] float32 and labels y [n] int64 under one name; n may be 0.

    The digests are computed once: do not write into the tensors.

    Guarantee: neither `repr` nor an error of this room shows a value of `x` (tested). The digests are plain hashes of
    private data: whoever holds all records but one can confirm a guess of that one, so share them with that in mind.

    >>> Records(torch.zeros(2, 3), torch.tensor([0, 1]), "toy")
    Records('toy', n=2, shape=(3,), digest=63c511c682af)
    """

    x: Float32[Tensor, "n ..."]
    y: Int64[Tensor, " n"]
    name: str

    def __post_init__(self) -> None:
        """Refuse other types and unequal lengths, all at once."""
        _check(self.x, self.y, self.name)

    @classmethod
    def of(cls, x: Any, y: Any, name: str) -> Records:
        """Build records from tensors or NumPy arrays of any numeric type; integers are cast, not scaled.

        Raises `DataError` where `x` is not numeric or `y` does not hold whole numbers.
        """
        inputs, labels = _array(x, "x", name), _array(y, "y", name)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dtype.kind == "f" and not np.array_equal(labels, np.trunc(labels)):
            raise DataError(
                f"the labels of '{name}' are not classes",
                expected="whole numbers 0, 1, ...",
                came=f"fractions in {labels.dtype}",
                fix="give class numbers; edgeward audits classifiers only",
            )
        with np.errstate(all="ignore"):
            x32 = torch.from_numpy(np.array(inputs, dtype=np.float32, order="C"))
            y64 = torch.from_numpy(np.array(labels, dtype=np.int64, order="C"))
        _check(x32, y64, name)
        return cls(x32, y64, name)

    def __len__(self) -> int:
        """Return n."""
        return len(self.y)

    def __repr__(self) -> str:
        """Show the name, the counts and the digest, never a record."""
        return f"Records({self.name!r}, n={len(self)}, shape={self.shape}, digest={self.digest[:12]})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one record, without the first axis."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> Int64[Tensor, " c"]:
        """The labels that occur, in the order of their first records: whatever their numbers, this order stays."""
        values: Tensor
        values, place = torch.unique(self.y, return_inverse=True)
        first = torch.full((len(values),), len(self), dtype=torch.int64)
        first = first.scatter_reduce(0, place, torch.arange(len(self)), "amin")
        return values[first.argsort()]

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor, name: str | None = None) -> Records:
        """Return copies of the records at `indices`, in that order, under `name` (default: the same)."""
        rows = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
            raise DataError(
                f"indices outside the records '{self.name}'",
                expected=f"0 to {len(self) - 1}",
                came=f"{int(rows.min())} to {int(rows.max())}",
                fix="index the records of this role",
            )
        part = Records(self.x[rows], self.y[rows], self.name if name is None else name)
        if "row_hashes" in vars(self):
            vars(part)["row_hashes"] = tuple(self.row_hashes[i] for i in rows.tolist())
        return part

    def named(self, name: str) -> Records:
        """Return the same records under another name; tensors are shared."""
        same = Records(self.x, self.y, name)
        vars(same).update({key: vars(self)[key] for key in ("digest", "row_hashes") if key in vars(self)})
        return same

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, types, inputs and labels (64 hex digits); the name does not enter."""
        h = hashlib.sha256(f"{tuple(self.x.shape)} float32 {tuple(self.y.shape)} int64\n".encode())
        h.update(_bytes(self.x, "<f4").data)
        h.update(_bytes(self.y, "<i8").data)
        return h.hexdigest()

    @cached_property
    def row_hashes(self) -> tuple[bytes, ...]:
        """A 128-bit BLAKE2b of each input, labels left out: equal inputs, equal hashes (-0 counts as 0).

        Cost: about 1 µs and the record's bytes per row. Collisions have probability n² / 2^129.
        """
        if len(self) == 0:
            return ()
        # Adding 0 turns -0 into 0: both are one record to every network.
        rows = _bytes(self.x + 0.0, "<f4").reshape(len(self), -1)
        return tuple(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)


def _check(x: Tensor, y: Tensor, name: str) -> None:
    problems = []
    if x.dtype != torch.float32 or x.ndim < 1:
        problems.append(f"x is {_describe(x)}: expected float32 with the records on the first axis")
    if y.dtype != torch.int64 or y.ndim != 1:
        problems.append(f"y is {_describe(y)}: expected int64 with one axis")
    if x.ndim >= 1 and y.ndim >= 1 and len(x) != len(y):
        problems.append(f"x holds {len(x)} records and y {len(y)} labels")
    if problems:
        raise DataError(
            f"the records '{name}' are malformed",
            expected="x float32 [n, ...] and y int64 [n] of one length",
            came="; ".join(problems),
            fix="give one label for each record; `Records.of` converts the types",
        )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _bytes(tensor: Tensor, kind: str) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().numpy().reshape(-1)
    return np.ascontiguousarray(flat, dtype=kind).view(np.uint8)


def _array(values: Any, role: str, name: str) -> np.ndarray:
    """Return `values` as a numeric array, or raise without showing any of them."""
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except Exception as error:  # whatever a foreign type raises may quote its content
        raise _not_numeric(role, name, f"{type(values).__name__} ({type(error).__name__})") from None
    if array.dtype.kind not in "fiub" or array.ndim < 1:
        raise _not_numeric(role, name, f"{array.dtype} with {array.ndim} axes")
    return array


def _not_numeric(role: str, name: str, came: str) -> DataError:
    return DataError(
        f"{role} of '{name}' is not an array of numbers",
        expected="a tensor or NumPy array of floats, integers or booleans with the records on the first axis",
        came=came,
        fix="convert it, for instance with numpy.asarray(values, dtype='float32')",
    )
