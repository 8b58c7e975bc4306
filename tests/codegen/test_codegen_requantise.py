"""The rounding rule: known answers, ties and signs, and its limits."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.codegen.requantise import fixed_point, requantise, rescale_sum, sum_multipliers
from edgeward.core.errors import ModelError

INT32 = st.integers(-(2**31) + 1, 2**31 - 1)


@pytest.mark.parametrize(
    ("acc", "multiplier", "shift", "zero", "low", "high", "expected"),
    [
        (0, 2**30, 31, 5, -128, 127, 5),
        (1, 1, 1, 0, -128, 127, 1),  # 0.5 -> 1
        (-1, 1, 1, 0, -128, 127, 0),  # -0.5 -> 0, towards plus infinity
        (-3, 1, 1, 0, -128, 127, -1),  # -1.5 -> -1
        (3, 1, 2, 0, -128, 127, 1),  # 0.75
        (-3, 1, 2, 0, -128, 127, -1),  # -0.75
        (-5, 1, 3, 0, -128, 127, -1),  # -0.625
        (-4, 1, 3, 0, -128, 127, 0),  # -0.5
        (1000, 2**30, 30, 0, -128, 127, 127),
        (-1000, 2**30, 30, 0, -128, 127, -128),
        (-1000, 2**30, 30, 0, -10, 127, -10),
        (100, 2**30, 30, -128, -128, 127, -28),
        (2**31 - 1, 2**31 - 1, 62, 0, -128, 127, 1),
        (-(2**31) + 1, 2**31 - 1, 62, 0, -128, 127, -1),
        (123456789, 0, 1, 7, -128, 127, 7),
    ],
)
def test_known_answers(acc, multiplier, shift, zero, low, high, expected):
    assert requantise(np.array([acc]), multiplier, shift, zero, low, high).tolist() == [expected]


@settings(deadline=None)
@given(INT32, INT32, st.integers(1, 62), st.integers(-128, 127))
def test_it_is_the_floor_of_the_exact_number_plus_a_half(acc, multiplier, shift, zero):
    exact = floor(Fraction(acc * multiplier, 2**shift) + Fraction(1, 2))
    got = int(requantise(np.array([acc]), multiplier, shift, zero, -128, 127)[0])
    assert got == min(max(exact + zero, -128), 127)


@settings(deadline=None)
@given(st.floats(2.0**-31, 2.0**29.9))
def test_fixed_point_keeps_31_bits(real):
    multiplier, shift = fixed_point(real)
    assert 0 < multiplier < 2**31
    assert 1 <= shift <= 62
    assert abs(Fraction(multiplier, 2**shift) / Fraction(real) - 1) <= Fraction(1, 2**30)


def test_fixed_point_at_its_ends():
    assert fixed_point(0.0) == (0, 1)
    multiplier, shift = fixed_point(1 - 2**-53)
    assert Fraction(multiplier, 2**shift) == 1
    assert fixed_point(2.0**-40)[1] == 62
    for wrong in (-0.5, 2.0**30, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="32-bit multiplier"):
            fixed_point(wrong)


@settings(deadline=None)
@given(st.floats(2.0**-12, 2.0**12), st.floats(-(2.0**12), 2.0**12))
def test_sum_multipliers_fit_32_bits(first, second):
    a, b, shift = sum_multipliers(first, second)
    assert 1 <= shift <= 30
    assert max(abs(a), abs(b)) < 2**21
    assert 255 * (abs(a) + abs(b)) + 2 ** (shift - 1) < 2**31
    largest = max(abs(first), abs(second))
    assert abs(Fraction(a, 2**shift) - Fraction(first)) <= Fraction(largest) / 2**19


@settings(deadline=None)
@given(st.integers(-255, 255), st.integers(-255, 255), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_sum_equals_the_general_rule(a, b, first, second):
    m_a, m_b, shift = sum_multipliers(first, second)
    got = rescale_sum(np.array([a], np.int32), np.array([b], np.int32), (m_a, m_b), shift, 3, -100, 100)
    assert got.tolist() == requantise(np.array([a * m_a + b * m_b]), 1, shift, 3, -100, 100).tolist()


def test_operands_of_very_different_scale_are_refused():
    with pytest.raises(ModelError, match="differ too much"):
        sum_multipliers(2.0**21, 1.0)
