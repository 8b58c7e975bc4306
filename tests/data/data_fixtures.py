"""Where the tests find real data, and small records of their own."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgeward.data.records import Records

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needs(path: str):
    """Skip where a real file is absent."""
    return pytest.mark.skipif(not (DATA / path).is_file(), reason=f"{path} is not in EDGEWARD_DATA")


def toy(n: int, seed: int, classes: int = 4, features: int = 6, name: str = "toy") -> Records:
    """Random records; inputs of different seeds do not collide."""
    rng = np.random.default_rng(seed)
    return Records.of(rng.normal(size=(n, features)), rng.integers(0, classes, n), name)
