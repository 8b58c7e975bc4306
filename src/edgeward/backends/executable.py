"""`Executable`: something that maps records to logits exactly as the shipped artefact does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float


class Executable(ABC):
    """A network that can be run; utility and leakage are measured on it, never on the float network it came from.

    Shapes: `run` maps float32 [n, ...input shape] to float32 logits [n, classes].
    """

    runtime: ClassVar[str]

    @abstractmethod
    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Return the logits of `records`."""

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit) for `records`; by default the logits alone."""
        return (self.run(records),)
