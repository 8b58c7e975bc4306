"""Ring elements, shares, planes and the simulator against Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeward.backends.mpc.planes import pack, plane_bytes, select, to_planes, unpack
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, add, reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.core.errors import ConfigError, DataError

RINGS = st.builds(lambda bits, part: Ring(bits, int(part * (bits - 2))), st.integers(2, 64), st.floats(0, 1))


def signed(value, bits):
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


@given(RINGS, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_elements_are_integers_modulo_two_to_the_bits(ring, values):
    elements = ring.from_integers(np.array(values))
    assert elements.dtype.itemsize == ring.element_bytes in (1, 2, 4, 8)
    assert elements.tolist() == [v % (1 << ring.bits) for v in values]
    assert ring.signed(elements).tolist() == [signed(v, ring.bits) for v in values]
    assert [int(ring.constant(v)) for v in values] == elements.tolist()
    doubled = Simulator(ring).add(elements, elements)
    assert doubled.tolist() == [2 * v % (1 << ring.bits) for v in values]
    squared = Simulator(ring).multiply(elements, elements)
    assert squared.tolist() == [v * v % (1 << ring.bits) for v in values]


@given(RINGS, st.floats(-0.999, 0.999))
def test_encoding_is_within_half_a_unit(ring, part):
    # Doubles hold 53 bits: from there on a unit is below what they tell apart.
    x = part * 2.0 ** (ring.bits - 1 - ring.fraction)
    limit = 2.0 ** (ring.bits - 1)
    if abs(np.rint(x * 2.0**ring.fraction)) < limit:
        back = ring.decode(ring.encode(np.array([x])))[0]
        assert abs(back - x) <= 0.5 * 2.0**-ring.fraction


@pytest.mark.parametrize("x", [np.inf, -np.inf, np.nan, 2.0**47, -(2.0**48)])
def test_numbers_outside_the_ring_are_refused(x):
    with pytest.raises(DataError, match="1 of 2 numbers"):
        Ring(64, 16).encode(np.array([0.0, x]))


@pytest.mark.parametrize(("bits", "fraction"), [(1, 0), (65, 16), (8, 7), (8, -1)])
def test_rings_without_room_are_refused(bits, fraction):
    with pytest.raises(ConfigError, match="no such ring"):
        Ring(bits, fraction)


@given(RINGS, st.integers(0, 2**32))
def test_shares_add_up_and_differ_every_time(ring, seed):
    x = ring.wrap(np.random.default_rng(seed).integers(0, 256, 64, dtype=np.uint8).view(ring.dtype))
    first, second = share(ring, x)
    np.testing.assert_array_equal(reconstruct(ring, first, second), x)
    assert share(ring, x)[0].elements.tolist() != first.elements.tolist() or x.size * ring.bits < 64


def test_one_share_is_uniform_whatever_the_value():
    ring = Ring(64, 16)
    for part in share(ring, ring.encode(np.full(20000, 3.0))):
        counts = np.bincount(part.elements.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-9


def test_shares_of_different_things_are_not_mixed():
    ring = Ring(64, 16)
    a, b = Shared(ring.encode(np.ones(3)), 16), Shared(ring.encode(np.ones(3)), 32)
    with pytest.raises(ConfigError):
        reconstruct(ring, a, b)
    with pytest.raises(ConfigError):
        add(ring, a, b)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.integers(1, 64))
def test_planes_hold_the_bits(values, bits):
    planes = to_planes(np.array(values, np.uint64), bits)
    assert planes.shape == (bits, plane_bytes(len(values)))
    for i, plane in enumerate(planes):
        assert unpack(plane, len(values)).tolist() == [v >> i & 1 for v in values]


@given(st.integers(0, 4), st.integers(0, 2**32))
def test_selection_looks_every_element_up(width, seed):
    draws, count = np.random.default_rng(seed), 13
    table, index = draws.integers(0, 2, (1 << width, count)).astype(bool), draws.integers(0, 1 << width, count)
    chosen = select(np.stack([pack(row) for row in table]), to_planes(index.astype(np.uint64), width))
    assert unpack(chosen, count).tolist() == table[index, np.arange(count)].tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(0, 62), st.integers(2, 64))
def test_the_simulator_follows_the_definitions(values, shift, width):
    ring, elements = Ring(64, 16), np.array([v % 2**64 for v in values], np.uint64)
    simulator = Simulator(ring)
    assert ring.signed(simulator.truncate(elements, shift)).tolist() == [v >> shift for v in values]
    low = [signed(v, width) for v in values]
    assert simulator.nonnegative(elements, width).tolist() == [int(v >= 0) for v in low]
    assert ring.signed(simulator.relu(elements, width)).tolist() == [
        v if s >= 0 else 0 for v, s in zip(values, low, strict=True)
    ]
    assert ring.signed(simulator.maximum(elements[None])).tolist() == [max(values)]
