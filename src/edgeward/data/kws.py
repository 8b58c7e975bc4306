"""`kws`: keyword spotting, half of MLPerf Tiny's accuracy set, as cepstral coefficients."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, read_source
from edgeward.data.npz import read_npz
from edgeward.data.partition import Sizes
from edgeward.data.records import Records

_FILE: Final = SourceFile(
    ("mlperf-tiny/kws01_mfcc_int8.npz",),
    ("bd8b5499a5ac611ab14c3c3062fa81cf6c441790ecfe21202698a03c33b80690",),
    "github.com/eembc/energyrunner, datasets/kws01, joined in one npz",
)


@DATASETS.register("kws")
def kws(request: Request) -> Pools:
    """Return 500 spoken words [1, 49, 10] as MFCC, twelve classes; 200 / 50 / 150 / 99 records in the roles.

    The coefficients are those the published network takes: the stored integers times their scale, about -123 to 25.
    Canaries: at most 66. Classes: down, go, left, no, off, on, right, stop, up, yes, silence, unknown.
    Source: Warden, arXiv 1804.03209 (Speech Commands v2); Banbury et al., arXiv 2106.07597.
    """
    arrays = read_npz(read_source(request.root, _FILE), _FILE.paths[0])
    scale, zero = arrays["input_scale_zero_point"]
    records = Records.of((arrays["x"].astype(np.float64) - zero)[:, None] * scale, arrays["label"], "kws")
    note = "KWS: 500 of the 1000 words of the accuracy set"
    return Pools(
        records, None, classes=12, sizes=Sizes(train=200, validation=50, holdout=150, shadow=99), notes=(note,)
    )
