"""Test vectors: inputs that were never records, with the logits the shipped file gives for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float, Float32

from edgeward.backends.cleartext.container import Malformed, read_container, write_container
from edgeward.backends.executable import Executable
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed

MAX_VECTORS = 4096


def synthetic_vectors(
    input_shape: tuple[int, ...],
    count: int,
    seed: Seed,
    *,
    kind: Literal["uniform", "gaussian"] = "uniform",
    low: float = 0.0,
    high: float = 1.0,
) -> Float32[np.ndarray, "n ..."]:
    """Draw inputs that carry nothing of any record: noise in the range [low, high] of the data.

    "gaussian" has its mean in the middle and half the range as two standard deviations, cut at the range.
    Guarantee: a function of the arguments alone (proved: no record is an argument).

    >>> synthetic_vectors((2, 2), 3, Seed(0)).shape
    (3, 2, 2)
    """
    draws = seed.child("test vectors", kind).numpy()
    shape = (count, *input_shape)
    if kind == "uniform":
        return draws.uniform(low, high, shape).astype(np.float32)
    middle, spread = (low + high) / 2, (high - low) / 4
    return np.clip(draws.normal(middle, spread, shape), low, high).astype(np.float32)


@final
@dataclass(frozen=True)
class Vectors:
    """Inputs [n, ...input shape] and the expected logits [n, classes]."""

    x: Float32[np.ndarray, "n ..."]
    logits: Float32[np.ndarray, "n classes"]

    @classmethod
    def answered_by(cls, executable: Executable, x: Float[np.ndarray, "n ..."]) -> Vectors:
        """Return inputs with the answers of the executable that ships."""
        x = np.ascontiguousarray(x, np.float32)
        return cls(x, np.ascontiguousarray(executable.run(x), np.float32))

    def to_bytes(self) -> bytes:
        """Return the safetensors file. Raises: `ConfigError` for vectors that cannot be replayed."""
        finite = bool(np.isfinite(self.x).all() and np.isfinite(self.logits).all())
        if not 1 <= len(self.x) <= MAX_VECTORS or len(self.x) != len(self.logits) or not finite:
            raise ConfigError(
                "the test vectors cannot be replayed",
                expected=f"1 to {MAX_VECTORS} finite inputs, each with its logits",
                came=f"{len(self.x)} inputs, {len(self.logits)} logits, {'finite' if finite else 'not finite'}",
                fix="draw inputs with `synthetic_vectors` and answer them with the executable",
            )
        return write_container({"input": self.x, "logits": self.logits}, {})

    @classmethod
    def from_bytes(cls, data: bytes, input_shape: tuple[int, ...], classes: int) -> Vectors:
        """Read vectors of foreign origin. Raises: `Malformed`."""
        tensors, metadata = read_container(data)
        if set(tensors) != {"input", "logits"} or metadata:
            raise Malformed("it does not hold an input and logits alone")
        x, logits = tensors["input"], tensors["logits"]
        count = x.shape[0] if x.ndim else 0
        fits = x.dtype == logits.dtype == np.float32 and x.shape[1:] == input_shape and logits.shape == (count, classes)
        if not fits or not 1 <= count <= MAX_VECTORS or not bool(np.isfinite(logits).all() and np.isfinite(x).all()):
            raise Malformed(
                f"it holds {x.dtype} {x.shape} -> {logits.shape}, not finite float32 of the manifest's shapes"
            )
        return cls(x.astype(np.float32), logits.astype(np.float32))

    def largest_difference(self, executable: Executable) -> float:
        """Return max |found - expected| / (1 + |expected|) over all logits; infinity where the answer is no number."""
        found = executable.run(self.x)
        if found.shape != self.logits.shape:
            return float("inf")
        expected = self.logits.astype(np.float64)
        difference = np.abs(found - expected) / (1 + np.abs(expected))
        return float(np.where(np.isnan(difference), np.inf, difference).max())
