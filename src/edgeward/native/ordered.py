"""Float matrix products with one fixed order of summation: the same bits on every processor."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
from jaxtyping import Float32

from edgeward.core.errors import ConfigError
from edgeward.native.build import kernels

_LANES = 16
_BLOCK_FLOATS = 1 << 16


def ordered_matmul(
    a: Float32[np.ndarray, "p k"], w: Float32[np.ndarray, "terms o"], native: bool = True
) -> Float32[np.ndarray, "p o"]:
    """Return a w, each output summed from the first to the last term with one float32 rounding per operation.

    Guarantee: the result is a function of the numbers alone (IEEE 754), not of the processor, the row's place in the
    batch or the library in use; `native=False` gives the same bits in NumPy. Cost: p k o multiply-adds.
    """
    if a.shape[1] != w.shape[0]:
        raise ConfigError("matrices do not fit", expected=f"[{a.shape[1]}, o]", came=f"{list(w.shape)}")
    library = _trusted() if native else None
    return _portable(a, w) if library is None else _compiled(library, a, w)


@functools.lru_cache(maxsize=1)
def _trusted() -> ctypes.CDLL | None:
    """Return the compiled kernel once it has reproduced the bits of the NumPy form."""
    library = kernels().library
    draws = np.random.default_rng(0)
    a, w = (draws.standard_normal(shape).astype(np.float32) for shape in ((7, 33), (33, 21)))
    alike = library is not None and _compiled(library, a, w).tobytes() == _portable(a, w).tobytes()
    return library if alike else None


def _compiled(library: ctypes.CDLL, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    outputs = w.shape[1]
    # Whole vectors only: a short last vector would run as scalars.
    padded = np.pad(w, ((0, 0), (0, -outputs % _LANES))) if outputs > 2 else w
    a, padded = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(padded, np.float32)
    out = np.empty((len(a), padded.shape[1]), np.float32)
    pointers = [array.ctypes.data for array in (a, padded, out)]
    library.edgeward_ordered_matmul(*pointers, len(a), padded.shape[1], a.shape[1])
    return np.ascontiguousarray(out[:, :outputs])


def _portable(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    out = np.zeros((len(a), w.shape[1]), np.float32)
    rows = max(1, _BLOCK_FLOATS // max(1, w.shape[1]))
    with np.errstate(all="ignore"):
        for start in range(0, len(a), rows):
            block, columns = out[start : start + rows], a[start : start + rows].T.copy()
            product = np.empty_like(block)
            for column, row in zip(columns, w, strict=True):
                np.multiply(column[:, None], row[None, :], out=product)
                block += product
    return out
