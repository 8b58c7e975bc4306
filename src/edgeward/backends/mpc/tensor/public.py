"""Public numbers beside secret ones: how they become elements, and how many fraction bits they get."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch

from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.tensor.protocols import Value
from edgeward.core.errors import DataError

Public: TypeAlias = "float | int | np.ndarray | torch.Tensor"


def numbers_of(x: Public) -> np.ndarray:
    """Return public numbers in float64. Raises: `DataError` for some that are not finite."""
    array = np.asarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x, np.float64)
    if not np.isfinite(array).all():
        raise DataError("public numbers must be finite", expected="finite numbers", came="others")
    return array


def whole(numbers: np.ndarray) -> bool:
    """Return whether all are integers, which need no fraction bits."""
    return bool((numbers == np.rint(numbers)).all())


def encoded(ring: Ring, numbers: np.ndarray, places: int) -> np.ndarray:
    """Return numbers as elements with `places` fraction bits; one number has shape [1]."""
    return Ring(ring.bits, places).encode(numbers).reshape(numbers.shape or (1,))


def lifted(ring: Ring, value: Value, fraction: int) -> Value:
    """Return the same numbers with at least `fraction` fraction bits, without communication."""
    if value.fraction >= fraction:
        return value
    factor = ring.constant(1 << (fraction - value.fraction))
    return value.each(lambda part: ring.wrap(part * factor), fraction)
