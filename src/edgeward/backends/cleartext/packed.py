"""`PackedExecutable`: the packed format's own small runtime, NumPy and popcount kernels."""

from __future__ import annotations

import math
from typing import ClassVar, final

import numpy as np
from jaxtyping import Float

from edgeward.backends.cleartext.packed_plan import Plan, read_plan
from edgeward.backends.cleartext.packed_steps import INEXACT, STEPS
from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError

_CHUNK_ELEMENTS = 1 << 23


@final
class PackedExecutable(Executable):
    """Runs a packed file.

    Guarantee: a malformed file is one `ModelError` before anything runs. Answers do not depend on the other records of
    the batch. Where `exact` is true they are the same bits on every machine, with compiled kernels or without.
    Cost: one pass over the nodes; a value is dropped after its last reader.
    """

    runtime: ClassVar[str] = "edgeward-packed"

    def __init__(self, artefact: bytes, native: bool = True) -> None:
        """Check and decode `artefact`; `native=False` keeps to NumPy."""
        self._plan = read_plan(artefact)
        self._runners = [
            STEPS[step.operator](step, native) if step.operator != "constant" else None for step in self._plan.steps
        ]
        self._last_reader = self._plan.last_readers()
        widest = max((max(step.work_elements, math.prod(step.shape)) for step in self._plan.steps), default=1)
        self._chunk = max(1, min(256, _CHUNK_ELEMENTS // max(1, widest)))

    @property
    def plan(self) -> Plan:
        """The checked contents of the file."""
        return self._plan

    @property
    def exact(self) -> bool:
        """Whether every operator gives the same bits on every machine."""
        return not any(step.operator in INEXACT for step in self._plan.steps)

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Return the last output for `records` [n, ...input shape] as float32."""
        return self.run_all(records)[-1]

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit) for `records`. Raises: `DataError` for records of another shape."""
        expected = self._plan.input_shape
        if tuple(records.shape[1:]) != expected:
            raise DataError(
                "the records do not fit the network",
                expected=f"float32 [n, {', '.join(map(str, expected))}]",
                came=f"{records.dtype} {list(records.shape)}",
                fix="give a batch of records of the shape the network was captured with",
            )
        x = np.ascontiguousarray(records, np.float32)
        starts = range(0, len(x), self._chunk)
        # Overflow of foreign weights gives infinities, as in any other runtime, and no warnings.
        with np.errstate(all="ignore"):
            parts = [self._interpret(x[start : start + self._chunk]) for start in starts]
        shapes = [self._plan.shape(value) for value in self._plan.outputs]
        return tuple(
            np.concatenate([part[i] for part in parts]) if parts else np.empty((0, *shape), np.float32)
            for i, shape in enumerate(shapes)
        )

    def _interpret(self, records: np.ndarray) -> list[np.ndarray]:
        values = {0: records}
        for number, (step, runner) in enumerate(zip(self._plan.steps, self._runners, strict=True)):
            if runner is None:
                value = step.tensors["value"].array.reshape(1, *step.shape)
                values[number + 1] = np.broadcast_to(value, (len(records), *step.shape))
            else:
                values[number + 1] = runner([values[i] for i in step.inputs])
            for spent in set(step.inputs):
                if self._last_reader.get(spent) == number:
                    del values[spent]
        return [np.ascontiguousarray(values[i], np.float32) for i in self._plan.outputs]
