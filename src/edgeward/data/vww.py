"""`vww`: Visual Wake Words, half of MLPerf Tiny's accuracy set (is a person in the picture?)."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import UInt8

from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, damaged, read_source
from edgeward.data.images import decode_image, unit_interval
from edgeward.data.npz import read_npz
from edgeward.data.partition import Sizes
from edgeward.data.records import Records

_ORIGIN: Final = "github.com/eembc/energyrunner, datasets/vww01, as sheets of 10 x 10 tiles of 96 pixels"
_SHEETS: Final = {
    "vww01_0.webp": "b6ed1a8e8fcb3e8c73b73f02ad2d9e5379b9923e753712c3387223ebe46f154f",
    "vww01_1.webp": "3302a98d4366354a4780493952a5e41d0d81f13049b91a54a83e872e9acb6860",
    "vww01_2.webp": "5625fdf3cae1222ee8a9fdf6821d5da62f131bc7dca86c54099e22312e2823e7",
    "vww01_3.webp": "7ff1e327da3e957361e09ca5231b03f8b944b3d1f4d7ee148d84b36bbc283e22",
    "vww01_4.webp": "042efe99b8c65229d1c6909d20007d3fb7d84de39f0bfd4b629b6552d940d46f",
}
_LABELS: Final = ("vww01_labels.npz", "643aad5e7ea7350c17aee13f4d7f7ba9c8e9eff8f52d1537cd8bad572a70409a")


@DATASETS.register("vww")
def vww(request: Request) -> Pools:
    """Return 500 photos [3, 96, 96] in [0, 1], 1 where a person is in it; 200 / 50 / 150 / 100 records in the roles.

    These are evaluation photos (COCO val2017). So few records give wide intervals: 150 holdout records measure an
    accuracy to about 6 points. Canaries: at most 66.
    Source: Chowdhery et al., arXiv 1906.05721; Banbury et al., arXiv 2106.07597.
    """
    tiles = [_cut(read_source(request.root, _file(name, digest)), name) for name, digest in _SHEETS.items()]
    labels = read_npz(read_source(request.root, _file(*_LABELS)), _LABELS[0])["label"]
    records = Records.of(unit_interval(np.concatenate(tiles)), labels, "vww")
    note = "VWW: 500 of the 1000 photos of the accuracy set"
    return Pools(
        records, None, classes=2, sizes=Sizes(train=200, validation=50, holdout=150, shadow=100), notes=(note,)
    )


def _file(name: str, digest: str) -> SourceFile:
    return SourceFile((f"mlperf-tiny/{name}",), (digest,), _ORIGIN)


def _cut(data: bytes, name: str) -> UInt8[np.ndarray, "100 3 96 96"]:
    """Return the tiles of a sheet, row by row."""
    image = decode_image(data, name)
    if image.size != (960, 960) or image.mode != "RGB":
        raise damaged(name, "a colour sheet of 960 x 960 pixels", f"{image.mode} of {image.width} x {image.height}")
    grid = np.asarray(image).reshape(10, 96, 10, 96, 3)
    tiles: np.ndarray = grid.transpose(0, 2, 4, 1, 3).reshape(100, 3, 96, 96)
    return tiles
