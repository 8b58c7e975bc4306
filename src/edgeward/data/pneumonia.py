"""`pneumonia_mnist`: chest X-rays of MedMNIST v2."""

from __future__ import annotations

from typing import Final

from edgeward.core.errors import DataError
from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, read_source
from edgeward.data.images import as_inputs
from edgeward.data.npz import read_npz
from edgeward.data.records import Records

_FILE: Final = SourceFile(
    ("pneumoniamnist/pneumoniamnist_rejoined.npz",),
    ("ce8250bf5debc3c389b89affcc1d9feac579b26e875a848301e9f937bb0c2eee",),
    "MedMNIST v2 (PneumoniaMNIST 28x28, re-joined in one npz)",
)


@DATASETS.register("pneumonia_mnist")
def pneumonia_mnist(request: Request) -> Pools:
    """Return PneumoniaMNIST: 4708 / 524 / 624 images [1, 28, 28] in [0, 1]; 0 normal, 1 pneumonia.

    The published parts share some images, which the loader drops from the later part.
    Source: Yang et al., MedMNIST v2, Scientific Data 2023.
    """
    arrays = read_npz(read_source(request.root, _FILE), _FILE.paths[0])
    missing = [k for part in ("train", "val", "test") for k in (f"{part}_images", f"{part}_labels") if k not in arrays]
    if missing:
        raise DataError(
            "the MedMNIST file lacks arrays",
            expected=", ".join(missing),
            came=", ".join(sorted(arrays)),
            fix=f"get the file again from {_FILE.origin}",
        )
    parts = {
        p: Records.of(as_inputs(arrays[f"{p}_images"]), arrays[f"{p}_labels"], p) for p in ("train", "val", "test")
    }
    return Pools(parts["train"], parts["test"], classes=2, validation=parts["val"])
