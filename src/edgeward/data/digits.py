"""`digits`: the 1797 handwritten 8x8 digits embedded in scikit-learn; needs no file."""

from __future__ import annotations

from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.partition import Sizes
from edgeward.data.records import Records


@DATASETS.register("digits")
def digits(request: Request) -> Pools:
    """Return 64 grey levels in [0, 1] per record, ten classes; 900 / 197 / 500 / 200 records in the four roles.

    Source: UCI Optical Recognition of Handwritten Digits, test part, as embedded in scikit-learn.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    records = Records.of(data.data / 16.0, data.target, "digits")
    return Pools(records, None, classes=10, sizes=Sizes(train=900, validation=197, holdout=500, shadow=200))
