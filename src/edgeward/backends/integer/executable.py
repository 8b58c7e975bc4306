"""`IntegerExecutable`: an int8 file run by the exact integer reference."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
from jaxtyping import Float

from edgeward.backends.executable import Executable
from edgeward.backends.integer.storage import from_file
from edgeward.codegen.integer import IntegerGraph
from edgeward.codegen.quantize import from_int8, to_int8
from edgeward.codegen.reference import run
from edgeward.core.errors import DataError


@final
class IntegerExecutable(Executable):
    """Runs an int8 file in exact integers: records are rounded to the grid of the input, logits read off theirs.

    Guarantee: the integers that the emitted C computes, bit for bit, on every machine (tested by compiling it); answers
    do not depend on the other records of the batch. Cost: one vectorised pass; a device is not imitated in time.
    """

    runtime: ClassVar[str] = "edgeward-int8"

    def __init__(self, artefact: bytes) -> None:
        """Check and decode `artefact`. Raises: `ModelError` for a malformed file."""
        self._graph = from_file(artefact)

    @property
    def graph(self) -> IntegerGraph:
        """The checked contents of the file."""
        return self._graph

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record, channels first."""
        shape = self._graph.values[self._graph.inputs[0]].shape
        return (shape[-1], *shape[:-1])

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Return the last output for `records` [n, ...input shape] as float32."""
        return self.run_all(records)[-1]

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit). Raises: `DataError` for records of another shape, or with NaN."""
        (source,) = self._graph.inputs
        if tuple(records.shape[1:]) != self.input_shape or bool(np.isnan(records).any()):
            raise DataError(
                "the records do not fit the network",
                expected=f"float32 [n, {', '.join(map(str, self.input_shape))}] without NaN",
                came=f"{records.dtype} {list(records.shape)}",
                fix="give a batch of records of the shape the network was captured with",
            )
        integers = to_int8(self._graph.values[source], np.ascontiguousarray(records, np.float32))
        found = run(self._graph, {source: integers})
        return tuple(from_int8(self._graph.values[name], found[name]) for name in self._graph.outputs)
