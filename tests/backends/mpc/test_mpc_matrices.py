"""Products of secret matrices: exact for every mask, the same messages prepared or not, uniform whatever the input."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.tuples import Dealer, Material, SupplyError
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply, prepare_product
from edgeward.backends.mpc.protocols.truncation import Truncation
from edgeward.backends.mpc.rehearsal import rehearse, run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, reconstruct, share
from edgeward.core.errors import ConfigError


def product(party, xs, ys, material, prepared):
    if prepared:
        material = prepare_product(party, material)
    return matrix_multiply(party, xs[party.number], ys[party.number], material)


@pytest.mark.parametrize("prepared", [False, True])
def test_every_mask_and_share_of_a_ring_of_four(prepared):
    """All shares of x, a and b for fixed second shares: 1 x 2 times 2 x 1 matrices modulo 4."""
    ring = Ring(2, 0)
    grid = np.array(list(itertools.product(range(4), repeat=6)))
    count = len(grid)
    x0, a0, b0 = (ring.from_integers(grid[:, place : place + 2]) for place in (0, 2, 4))
    x1, a1, b1, y0, y1 = (np.broadcast_to(ring.from_integers(np.array(v)), (count, 2)) for v in FIXED)
    a, b = ring.wrap(a0 + a1), ring.wrap(b0 + b1)
    c1 = np.random.default_rng(0).integers(0, 4, count).astype(np.uint8)
    c0 = ring.wrap((a * b).sum(1, dtype=np.uint8) - c1)
    demand = MatrixProduct(1, 2, 1, count)
    tuples = [
        Material(demand, 0, {"a": p[:, None, :].copy(), "b": q[:, :, None].copy(), "c": r[:, None, None].copy()})
        for p, q, r in ((a0, b0, c0), (a1, b1, c1))
    ]
    xs = [Shared(part[:, None, :].copy(), 0) for part in (x0, x1)]
    ys = [Shared(part[:, :, None].copy(), 0) for part in (y0, y1)]
    outcome = run_two(ring, lambda party: product(party, xs, ys, tuples[party.number], prepared))
    right = ring.wrap(((x0 + x1) * (y0 + y1)).sum(1, dtype=np.uint8))
    np.testing.assert_array_equal(reconstruct(ring, *outcome.results)[:, 0, 0], right)


FIXED = ([1, 3], [2, 3], [3, 1], [0, 2], [3, 3])


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 5)] * 4, st.integers(2, 64), st.integers(0, 2**32), st.booleans())
def test_stacks_multiply_like_python_integers(count, m, k, n, bits, seed, prepared):
    ring, demand, draws = Ring(bits, 0), MatrixProduct(m, k, n, count), np.random.default_rng(seed)
    x, y = (
        ring.wrap(draws.integers(0, 2**64, shape, np.uint64, endpoint=False))
        for shape in ((count, m, k), (count, k, n))
    )
    xs, ys = share(ring, x), share(ring, y)
    outcome = rehearse(ring, [demand], lambda party, s: product(party, xs, ys, s.draw(demand), prepared))
    right = (x.astype(object) @ y.astype(object)) % 2**bits
    assert reconstruct(ring, *outcome.results).tolist() == right.tolist()
    assert {(meter.sent, meter.rounds) for meter in outcome.meters} == {(demand.cost(ring).bytes, 1)}


def test_preparing_changes_no_message_and_no_share_of_the_other_factor():
    ring, demand = Ring(64, 0), MatrixProduct(3, 5, 2)
    x, y = ring.from_integers(np.arange(15).reshape(3, 5)), ring.from_integers(np.arange(10).reshape(5, 2))
    xs, ys, seeds = share(ring, x), share(ring, y), Dealer(ring).seeds
    views = []
    for prepared in (False, True):
        supplies = Dealer(ring, seeds=seeds).supplies([demand])
        outcome = run_two(ring, lambda p, s=supplies, f=prepared: product(p, xs, ys, s[p.number].draw(demand), f))
        views.append([[message.array.tolist() for message in inbox] for inbox in outcome.received])
        np.testing.assert_array_equal(reconstruct(ring, *outcome.results), x @ y)
    assert views[0] == views[1]


@pytest.mark.parametrize("x", [0, -1])
def test_what_is_opened_is_uniform(x):
    """Chi-square over the bytes that both parties receive, for one constant input."""
    ring, demand = Ring(64, 16), MatrixProduct(64, 65, 64)
    xs, ys = (share(ring, ring.from_integers(np.full(shape, x))) for shape in ((64, 65), (65, 64)))
    outcome = rehearse(ring, [demand], lambda party, s: product(party, xs, ys, s.draw(demand), True))
    for inbox in outcome.received:
        counts = np.bincount(np.concatenate([m.array.reshape(-1).view(np.uint8) for m in inbox]), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6


def test_other_shapes_are_refused():
    ring, demand = Ring(64, 0), MatrixProduct(2, 3, 4)
    x = share(ring, ring.from_integers(np.ones((2, 3))))
    with pytest.raises(ConfigError, match="other shapes"):
        rehearse(ring, [demand], lambda party, s: product(party, x, x, s.draw(demand), True))


@pytest.mark.parametrize(("bits", "shift"), [(64, 16), (64, 0), (40, 7), (8, 3)])
def test_a_truncation_given_in_advance_follows(bits, shift):
    """The same value as a product and `truncate` on it, up to the one unit that truncation leaves open."""
    ring, demands = Ring(bits, 0), [MatrixProduct(3, 5, 4, 2), Truncation(24, shift)]
    draws, bound = np.random.default_rng(bits + shift), math.isqrt(2 ** (bits - 3) // 5)
    x, y = (draws.integers(-bound, bound, shape, endpoint=True) for shape in ((2, 3, 5), (2, 5, 4)))
    xs, ys = (share(ring, ring.from_integers(values)) for values in (x, y))

    def program(party, supply):
        material = prepare_product(party, *(supply.draw(demand) for demand in demands))
        return matrix_multiply(party, xs[party.number], ys[party.number], material)

    outcome = rehearse(ring, demands, program)
    assert {result.fraction for result in outcome.results} == {-shift}
    excess = ring.signed(reconstruct(ring, *outcome.results)) - ((x @ y) >> shift)
    assert set(np.unique(excess)) <= ({0, 1} if shift else {0})
    cost = sum((demand.cost(ring) for demand in demands), Cost())
    assert {(meter.sent, meter.rounds) for meter in outcome.meters} == {(cost.bytes, cost.rounds)}


def test_a_truncation_of_another_size_is_refused():
    ring, demands = Ring(64, 0), [MatrixProduct(2, 2, 2), Truncation(5, 16)]
    with pytest.raises(SupplyError, match="something else"):
        rehearse(ring, demands, lambda party, s: prepare_product(party, *(s.draw(demand) for demand in demands)))
