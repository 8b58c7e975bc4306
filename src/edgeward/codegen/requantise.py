"""Fixed-point rescaling: the one rounding rule that the reference and the C kernels share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeward.core.errors import ModelError

INT32_TOP = 2**31 - 1
LONGEST_SHIFT = 62
# Two differences of at most 255 times their multipliers, plus half a unit, stay below 2^31.
ADD_MULTIPLIER_BITS, ADD_LONGEST_SHIFT = 21, 30


def fixed_point(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) with multiplier / 2^shift nearest to `real` >= 0; 31 significant bits where they fit.

    Guarantee: relative error at most 2^-31 for 2^-31 <= real < 2^30; smaller values lose bits as the shift ends at 62.

    >>> fixed_point(0.5), fixed_point(3.0)
    ((1073741824, 31), (1610612736, 29))
    """
    if not (math.isfinite(real) and 0 <= real < 2.0**30):
        raise ModelError(
            "a change of scale cannot be written as a 32-bit multiplier",
            expected="a factor of at least 0 and below 2^30",
            came=f"{real!r}",
            fix="give calibration records on which the result is not far smaller than its operands",
        )
    if real == 0:
        return 0, 1
    shift = min(31 - math.frexp(real)[1], LONGEST_SHIFT)
    multiplier = round(math.ldexp(real, shift))
    # Rounding up to 2^31 does not fit: the same number has one bit less and a shorter shift.
    return (multiplier, shift) if multiplier <= INT32_TOP else (multiplier >> 1, shift - 1)


def requantise(acc: Any, multiplier: Any, shift: Any, zero_point: int, low: int, high: int) -> np.ndarray:
    """Return clamp(zero_point + ((acc multiplier + 2^(shift - 1)) >> shift), low, high) as int8.

    Args: `acc` integers of at most 31 bits and a sign, of any shape; `multiplier` and `shift` broadcast against it.
    The shift is arithmetic: half units are rounded up, towards plus infinity, for both signs.
    Guarantee: exact in 64 bits, as |acc multiplier| < 2^62 and 2^(shift - 1) <= 2^61.

    >>> requantise(np.array([3, -3, 5, -5]), 1, 1, 0, -128, 127)
    array([ 2, -1,  3, -2], dtype=int8)
    """
    scaled = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)
    amount = np.asarray(shift, np.int64)
    scaled += np.int64(1) << (amount - 1)
    scaled >>= amount
    scaled += zero_point
    clamped: np.ndarray = np.clip(scaled, low, high).astype(np.int8)
    return clamped


def sum_multipliers(first: float, second: float) -> tuple[int, int, int]:
    """Return (multiplier_a, multiplier_b, shift) of an `add` whose operands are scaled by `first` and `second`.

    Guarantee: 255 (|m_a| + |m_b|) + 2^(shift - 1) < 2^31, so that 32 bits hold every intermediate result.
    """
    largest = max(abs(first), abs(second))
    if not math.isfinite(largest) or largest >= 2.0 ** (ADD_MULTIPLIER_BITS - 1):
        raise ModelError(
            "the operands of a sum differ too much in scale from its result",
            expected=f"factors below 2^{ADD_MULTIPLIER_BITS - 1}",
            came=f"{first!r} and {second!r}",
            fix="give calibration records on which the sum is not far smaller than its operands",
        )
    # round() may reach 2^bits from below, which the bound excludes: one bit is kept free.
    exponent = math.frexp(largest)[1] if largest else 0
    shift = max(1, min(ADD_LONGEST_SHIFT, ADD_MULTIPLIER_BITS - exponent))
    first_fixed, second_fixed = round(math.ldexp(first, shift)), round(math.ldexp(second, shift))
    if max(abs(first_fixed), abs(second_fixed)) >= 2**ADD_MULTIPLIER_BITS:
        shift -= 1
        first_fixed, second_fixed = round(math.ldexp(first, shift)), round(math.ldexp(second, shift))
    return first_fixed, second_fixed, shift


def rescale_sum(
    a: np.ndarray, b: np.ndarray, multipliers: tuple[int, int], shift: int, zero_point: int, low: int, high: int
) -> np.ndarray:
    """Return clamp(zero_point + ((a m_a + b m_b + 2^(shift - 1)) >> shift), low, high) for a, b without zero points."""
    total = a * np.int32(multipliers[0]) + b * np.int32(multipliers[1]) + np.int32(1 << (shift - 1))
    clamped: np.ndarray = np.clip((total >> shift) + np.int32(zero_point), low, high).astype(np.int8)
    return clamped
