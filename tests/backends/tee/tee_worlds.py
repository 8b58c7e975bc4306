"""Worlds that hold one key, and the stub application that runs in them."""

import sys

import numpy as np
import pytest

from backends.tee.tee_stub import stub_program
from edgeward.backends.tee.sealing import new_key
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.backends.tee.world import (
    Application,
)

KEY, DIGEST = new_key(), bytes(range(32))
WEIGHTS = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
LINUX = sys.platform.startswith("linux")
WORLDS = ["wasm", pytest.param("process", marks=pytest.mark.skipif(not LINUX, reason="the process tier needs Linux"))]


def application(**changes):
    """The stub with room to spare, accepting counters from 5."""
    figures = {"program": stub_program(), "manifest_digest": DIGEST, "memory_budget": 1 << 16, "counter_floor": 5}
    return Application(**{**figures, **changes})


def world_of(tier, **options):
    """A world that holds the key of this file."""
    if tier == "wasm":
        options.pop("timeout", None)
        return WasmWorld(KEY, **options)
    from edgeward.backends.tee.process_world import ProcessWorld

    return ProcessWorld(KEY, **options)


def records(count, seed=1, classes=10):
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, (count, n), dtype=np.int8) for n in (classes, 3)]
