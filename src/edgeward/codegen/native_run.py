"""Run an emitted program on this machine, a batch of records at a time, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from edgeward.codegen.emit import ENTRY, Program
from edgeward.codegen.toolchain import build
from edgeward.core.errors import ConfigError, DataError

ALIGNMENT = 16


def aligned(size: int) -> np.ndarray:
    """Return zeroed bytes that begin at a multiple of 16."""
    room = np.zeros(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


def check_records(program: Program, inputs: Sequence[np.ndarray], weights: bytes) -> int:
    """Return the number of records, or raise an error when the arrays or the weights do not fit the program."""
    if len(weights) != program.weights_bytes:
        raise ConfigError("the weights do not fit", expected=f"{program.weights_bytes} bytes", came=f"{len(weights)}")
    sizes = [int(np.prod(x.shape[1:])) for x in inputs]
    records = {len(x) for x in inputs}
    if tuple(sizes) != program.input_bytes or len(records) != 1 or any(x.dtype != np.int8 for x in inputs):
        raise DataError(
            "the inputs do not fit the program",
            expected=f"int8, {', '.join(map(str, program.input_bytes))} elements per record, equal numbers of records",
            came=", ".join(f"{x.dtype} {list(x.shape)}" for x in inputs),
        )
    return records.pop()


@final
class NativeProgram:
    """A program compiled for this machine and loaded, with its weights."""

    def __init__(
        self, program: Program, weights: bytes, *, flags: Sequence[str] = (), folder: Path | None = None
    ) -> None:
        """Compile (cached) and load; `weights` is the blob of `codegen.blob.pack`."""
        self.program, self._weights = program, np.frombuffer(weights, np.uint8)
        self._blob = weights
        library = build(program.files, "native", exports=(ENTRY,), flags=flags, folder=folder)
        self._library = ctypes.CDLL(str(library))
        self._run = self._library[ENTRY]
        self._run.argtypes, self._run.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        self._arena = aligned(max(program.arena_bytes, 1))

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return every output for int8 records; shapes: inputs [n, ...] in NHWC order, outputs [n, bytes].

        Cost: one call of the entry per record. Not for several threads at once: the arena is shared.
        """
        records = check_records(self.program, inputs, self._blob)
        given = [np.ascontiguousarray(x) for x in inputs]
        made = [np.empty((records, size), np.int8) for size in self.program.output_bytes]
        sources, targets = (ctypes.c_void_p * len(given))(), (ctypes.c_void_p * len(made))()
        fixed = self._weights.ctypes.data, ctypes.addressof(sources), ctypes.addressof(targets), self._arena.ctypes.data
        starts = [x.ctypes.data for x in given], [y.ctypes.data for y in made]
        for record in range(records):
            for i, size in enumerate(self.program.input_bytes):
                sources[i] = starts[0][i] + record * size
            for i, size in enumerate(self.program.output_bytes):
                targets[i] = starts[1][i] + record * size
            if self._run(*fixed):
                raise ConfigError("the program refused its pointers")
        return tuple(made)
