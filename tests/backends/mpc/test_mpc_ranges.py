"""The ranges that are promised hold up to their ends, and what lies beyond is named before it is computed wrongly."""

import numpy as np
import pytest
from torch import nn

from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import OutOfRange, check_range
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.normalization import Normalization, normalize
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator_math import clear_normalize
from edgeward.backends.mpc.tensor import functions
from edgeward.backends.mpc.tensor.run import given, rehearsed, simulate_function
from edgeward.graph import capture

MOST = 2.0**30
"""The size below which values must keep with 16 fraction bits in 64."""


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.GELU()])
def test_a_wide_comparison_does_not_hide_that_a_truncated_value_leaves_the_ring(act):
    """48 bits are compared, but a value with 32 fraction bits must keep below 2^30 to be truncated."""
    lowered = lower(capture(nn.Sequential(nn.Conv2d(1, 1, 1), act), (1, 2, 2)), layout=Layout(48))
    for part, right in ((0.9, True), (1.6, False)):
        model = {name: np.full_like(t, part * 2**20 if t.ndim == 4 else 0) for name, t in lowered.model.items()}
        records = np.full((1, 1, 2, 2), 2.0**10)
        if right:
            assert 0.89 < max(check_range(lowered.plan, model, records).values()) < 0.91
        else:
            with pytest.raises(OutOfRange, match="range"):
                check_range(lowered.plan, model, records)


class Residual(nn.Module):
    """A sum of a product, which has 36 fraction bits, and its input, which has 16."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, x):
        return self.layer(x) + x


def test_a_sum_that_wraps_around_the_ring_is_named():
    lowered = lower(capture(Residual(), (1, 2, 2)))
    (name,) = lowered.model
    for size, right in ((2.0**25, True), (2.0**27, False)):
        model, records = {name: np.zeros_like(lowered.model[name])}, np.full((1, 1, 2, 2), size)
        if right:
            assert set(check_range(lowered.plan, model, records).values()) == {0.25}
        else:
            with pytest.raises(OutOfRange, match="range"):
                check_range(lowered.plan, model, records)


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("factor", [0.99, 0.75, 0.51, 0.3, 1e-3, 2.0**-14, 1e-6])
def test_products_of_the_largest_values_with_public_numbers(parties, factor):
    """Signs alternate; every element has a mask of its own, so that a wrong range would show in some of 64."""
    x = np.where(np.arange(64) % 2, 0.99, -0.99) * MOST
    run = simulate_function(lambda a: (a * factor).reveal(), [given(x, 0)], parties=parties)
    np.testing.assert_allclose(run.result, x * factor, atol=abs(MOST * 2.0**-30) + 2.0**-14, rtol=2.0**-15)


@pytest.mark.parametrize("parties", [2, 3])
def test_sums_of_small_parts_of_large_values_may_be_as_large_as_any(parties):
    """A product with a small public number has more fraction bits than others, and so less room above."""
    x = np.full(200, 0.9 * MOST)

    def program(a):
        part = a * (1.0001 * 2.0**-10)
        sums = [part.sum(), part + part * 0.9, part + 4e8, 4e8 - part, part * 300]
        return [each.reveal() for each in sums]

    run = simulate_function(program, [given(x, 0)], parties=parties)
    part = x * (1.0001 * 2.0**-10)
    for got, right in zip(run.result, (part.sum(), part * 1.9, part + 4e8, 4e8 - part, part * 300), strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(right, got.shape), rtol=2.0**-13)
    assert run.agrees


def test_gradients_flow_through_a_sum_of_small_parts():
    def program(a):
        (a.track() * 1e-3 * a).sum().backward()
        first = a.gradient.reveal()
        (a * 1e-3).sum().backward()
        return [first, a.gradient.reveal()]

    x = np.arange(1.0, 5)
    once, twice = simulate_function(program, [given(x, 0)]).result
    np.testing.assert_allclose(once, 2e-3 * x, atol=1e-4)
    np.testing.assert_allclose(twice, 2e-3 * x + 1e-3, atol=1e-4)


def test_a_rehearsal_asks_for_the_comparison_that_will_be_used():
    arguments, layout = [given(np.ones(3), 0)], Layout(32, keys=True)
    (demand,) = rehearsed(functions.relu, arguments, layout=layout)
    assert demand.layout == layout
    assert rehearsed(functions.relu, arguments) != (demand,)


def test_a_variance_outside_is_named():
    lowered = lower(capture(nn.Sequential(nn.LayerNorm(8, elementwise_affine=False), nn.ReLU()), (3, 8)))
    records = np.tile(np.linspace(-1.0, 1.0, 8), (1, 3, 1))
    assert 0.9 < max(check_range(lowered.plan, lowered.model, 47 * records).values()) < 1
    for size in (50, 5e4, 5e8):
        with pytest.raises(OutOfRange, match="range"):
            check_range(lowered.plan, lowered.model, size * records)


def test_a_value_below_the_range_of_leading_bits_moves_as_the_least_one():
    ring, demand = Ring(64, 16), Normalization(4, 5, 40)
    z = ring.from_integers(np.array([0, 1, 31, 32]))
    shares = share(ring, z)
    outcome = rehearse(ring, [demand], lambda p, supply: normalize(p, shares[p.number], supply.draw(demand)).value)
    moved, places = clear_normalize(ring, demand, z)
    np.testing.assert_array_equal(reconstruct(ring, *outcome.results), moved)
    assert not places.any()
