"""exp, reciprocal, inverse root, logarithm, softmax, standardised rows: toy rings, 64 bits, declared cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.mpc.toy_material import play
from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.reference import dealt_masks
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum, below_maximum
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.exponential import Exponential, exponential, exponential_between
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.iterations import Iterated, iterate
from edgeward.backends.mpc.protocols.normalization import Normalization, normalize
from edgeward.backends.mpc.protocols.rows import RowScaling, open_rows
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.protocols.standardize import Standardization, standardize
from edgeward.backends.mpc.rehearsal import run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.simulator_math import (
    ClearArithmetic,
    clear_below_maximum,
    clear_exponential,
    clear_inverse,
    clear_normalize,
    clear_softmax,
    clear_standardize,
)
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError

RING = Ring(64, 16)


def result(ring, outcome):
    return reconstruct(ring, *outcome.results)


def counted(meters, cost):
    assert {(m.sent, m.received, m.rounds) for m in meters} == {(cost.bytes, cost.bytes, cost.rounds)}


def checked(demands, program, clear, z, fraction=16, ring=RING):
    """Run with dealt material; return the decoded result, which must equal the oracle's bit for bit."""
    shares, dealer = share(ring, z, fraction), Dealer(ring)
    supplies = dealer.supplies(demands)
    drawn = [[supply.draw(demand) for demand in demands] for supply in supplies]
    outcome = run_two(ring, lambda party: program(party, shares[party.number], drawn[party.number]))
    np.testing.assert_array_equal(result(ring, outcome), clear(dealt_masks(dealer, ring, demands, 0)))
    counted(outcome.meters, sum((demand.cost(ring) for demand in demands), Cost()))
    return ring.decode(result(ring, outcome), outcome.results[0].fraction)


def test_exp_of_every_value_under_every_mask():
    ring, demand_of = Ring(32, 3), lambda count: Exponential(count, 3, 8, 3, 1, 14, 10)
    t, mask = (g.reshape(-1) for g in np.meshgrid(np.arange(-6 * 32, 32), np.arange(256), indexing="ij"))
    small, demand = Ring(8, 0), demand_of(len(t))
    elements, hidden = small.from_integers(t), small.from_integers(mask)
    shares = share(small, elements, 3)
    outcome = play(ring, demand, {"mask": hidden}, lambda p, m: exponential(p, shares[p.number].elements, m))
    got = result(ring, outcome)
    np.testing.assert_array_equal(got, clear_exponential(ring, demand, elements, hidden))
    right = np.exp(t / 8)
    # e^4 2^-15 for a segment of 4, and 2^-11 for the public factor.
    assert (np.abs(ring.decode(got, 24) - right) < np.exp(4) * 2.0**-14 + 2.0**-10 * right).all()
    counted(outcome.meters, Cost(len(t), 1))


@pytest.mark.parametrize(
    ("low", "high", "places", "table"), [(-100.0, 0.0, 16, 128), (-20.0, 0.0, 30, 64), (-20.0, 14.0, 16, 128)]
)
def test_exp_errs_by_less_than_16_units(low, high, places, table):
    """With 30 places exp(-10) is right in 12 bits too."""
    x = np.linspace(low, high, 2000, endpoint=False)
    demand, z = exponential_between(RING, 2000, low, high, places), RING.encode(x)
    got = checked(
        [demand],
        lambda p, s, m: exponential(p, s.elements, m[0]),
        lambda masks: clear_exponential(RING, demand, z, next(masks)),
        z,
    )
    right = np.exp(RING.decode(z))
    assert (np.abs(got - right) / np.maximum(1, right)).max() < 2.0**-12
    seen = right > 2.0 ** (13 - places)
    assert (np.abs(got - right)[seen] / right[seen]).max() < 2.0**-12
    assert (demand.cost(RING), demand.offline_bytes(RING)) == (Cost(2000 * 4, 1), 2000 * table)


@pytest.mark.parametrize("shift", [0, 3])
def test_the_coarse_maximum_of_rows_of_a_small_ring(shift):
    ring, draws = Ring(12, 2), np.random.default_rng(0)
    rows, columns, step, bins, domain = 4000, 3, 2, 3, 8
    demand = CoarseMaximum(rows, columns, shift, step, bins, domain)
    t = draws.integers(-16, 12, (rows, columns))
    z = ring.from_integers(t * (1 << shift) + draws.integers(0, 1 << shift, t.shape))
    mask = ring.from_integers(draws.integers(0, 1 << 12, t.shape))
    shares = share(ring, z)
    flat = {"mask": mask.reshape(-1)}
    outcome = play(ring, demand, flat, lambda p, m: Shared(below_maximum(p, shares[p.number], m), 2))
    got = result(Ring(domain, 0), outcome)
    np.testing.assert_array_equal(got, clear_below_maximum(Simulator(ring), demand, z, mask))
    largest = Ring(domain, 0).signed(got).max(axis=1)
    assert largest.min() == 1 - (1 << step)
    assert largest.max() == (1 << step) - 1
    counted(outcome.meters, demand.cost(ring))


@pytest.mark.parametrize("style", [Layout(), Layout(8, 1, 2), Layout(8, keys=True)])
def test_every_leading_bit_under_every_mask_of_a_small_ring(style):
    ring = Ring(10, 0)
    z, mask = (g.reshape(-1) for g in np.meshgrid(np.arange(4, 512), np.arange(0, 1024, 17), indexing="ij"))
    demand, elements = Normalization(len(z), 2, 8, style), ring.from_integers(z)
    shares, weights = share(ring, elements, 0), [3, -5, 8, 1, 0, 100, -77]

    def program(party, material):
        found = normalize(party, shares[party.number], material)
        return Shared(np.stack([found.value.elements, found.weighted(party, weights, 0).elements]), 0)

    outcome = play(ring, demand, {"mask": ring.from_integers(mask)}, program)
    value, weight = result(ring, outcome)
    moved, places = clear_normalize(ring, demand, elements)
    np.testing.assert_array_equal(value, moved)
    np.testing.assert_array_equal(ring.signed(weight), np.array(weights)[places])
    assert (value >> 8 == 1).all()
    counted(outcome.meters, demand.cost(ring))


@pytest.mark.parametrize("shift", [1, 3, 4])
def test_rows_truncated_squared_and_scaled_under_every_mask_of_a_small_ring(shift):
    ring, draws = Ring(8, 0), np.random.default_rng(shift)
    z, mask = (g.reshape(-1) for g in np.meshgrid(np.arange(-64, 64), np.arange(256), indexing="ij"))
    order = draws.permutation(len(z))
    # Each row pairs one of all cases with another.
    z, mask = (np.stack([v, v[order]], axis=1) for v in (z, mask))
    factor = ring.from_integers(draws.integers(0, 256, len(z)))
    elements, demand = ring.from_integers(z), RowScaling(len(z), 2, shift, True)
    shares, factors = share(ring, elements, shift), share(ring, factor, 1)

    def program(party, material):
        rows = open_rows(party, shares[party.number], material)
        squares, values = rows.squares(), rows.values()
        scaled = rows.scaled(factors[party.number])
        assert (squares.fraction, values.fraction, scaled.fraction) == (0, 0, 1)
        return Shared(np.concatenate([squares.elements[:, None], values.elements, scaled.elements], axis=1), 0)

    outcome = play(ring, demand, {"mask": ring.from_integers(mask).reshape(-1)}, program)
    t = Simulator(ring).truncate(elements, shift, ring.from_integers(mask))
    right = np.concatenate([(t * t).sum(axis=1, keepdims=True, dtype=np.uint8), t, t * factor[:, None]], axis=1)
    np.testing.assert_array_equal(result(ring, outcome), right)
    counted(outcome.meters, demand.cost(ring))


ITERATIONS = [("exp", -8, 1), ("reciprocal", 0.1, 100), ("inverse_root", 0.1, 100)]
INVERSES = {"reciprocal": lambda x: 1 / x, "inverse_root": lambda x: x**-0.5, "logarithm": np.log}


@pytest.mark.parametrize("name", INVERSES)
def test_inverses_err_by_less_than_16_units_over_16_octaves(name):
    count = 1500
    x = np.concatenate([2.0 ** np.linspace(-8, 8.99, count - 18), 2.0 ** np.arange(-8, 9), [2.0**9 - 2.0**-16]])
    z = RING.encode(x)
    what = Inverse(name, count, 16, 8, 24, 16, 10 if name == "reciprocal" else 16)
    got = checked(
        what.demands(RING),
        lambda p, s, m: inverse(p, s, what, m),
        lambda masks: clear_inverse(Simulator(RING), what, z, masks),
        z,
    )
    right = INVERSES[name](RING.decode(z))
    assert (np.abs(got - right) / np.maximum(1, np.abs(right))).max() < 2.0**-12
    assert what.cost(RING).rounds == (6 if name == "logarithm" else 7)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("exp", -8, 1), ("reciprocal", 0.1, 100), ("inverse_root", 0.1, 100)]
)
def test_iterations_reach_what_their_formulas_reach(name, low, high):
    x = np.linspace(low, high, 500)
    z, what = RING.encode(x), Iterated(name, 500)
    got = checked(
        what.demands(RING),
        lambda p, s, m: iterate(p, s, what, m),
        lambda masks: what.of(ClearArithmetic(Simulator(RING), masks), z),
        z,
    )
    right = np.exp(x) if name == "exp" else INVERSES[name](x)
    assert (np.abs(got - right) / np.maximum(1, right)).max() < 2.0**-6
    assert what.cost(RING).rounds == {"exp": 17, "reciprocal": 57, "inverse_root": 37}[name]


def soft(x):
    terms = np.exp(x - x.max(axis=1, keepdims=True))
    return terms / terms.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("columns", "spread"), [(1, 1), (2, 20), (10, 1), (65, 5), (100, 0.01), (100, 3), (300, 10)])
def test_softmax_errs_by_less_than_4_units(columns, spread):
    draws = np.random.default_rng(columns)
    x = np.clip(draws.normal(size=(20, columns)) * spread, -63.9, 61.9)
    x[0], x[1], x[2] = -63.99, 61.9, np.where(np.arange(columns) == 0, 61.9, -63.99)
    z, what = Ring(64, 32).encode(x), Softmax(20, columns, 16, 16)
    got = checked(
        what.demands(RING),
        lambda p, s, m: softmax(p, s, what, m),
        lambda masks: clear_softmax(Simulator(RING), what, z, masks),
        z,
        32,
    )
    assert np.abs(got - soft(Ring(64, 32).decode(z))).max() < 2.0**-14
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=2.0**-14)


def test_softmax_of_100_classes_takes_12_rounds_and_a_truncation():
    what = Softmax(1000, 100, 16, 16)
    assert what.cost(RING).rounds == 12
    assert what.cost(RING).bytes / 100_000 == pytest.approx(21.4, abs=0.1)


@pytest.mark.parametrize(
    ("columns", "spread", "offset"), [(64, 1, 0), (64, 0.02, 3), (100, 10, -20), (768, 0.5, 0.3), (2, 1, 0)]
)
def test_standardised_rows_err_by_less_than_16_units(columns, spread, offset):
    x = np.random.default_rng(columns).normal(size=(20, columns)) * spread + offset
    x[0] = offset
    z, what = RING.encode(x), Standardization(20, columns, 16, 1e-5)
    got = checked(
        what.demands(RING),
        lambda p, s, m: standardize(p, s, what, m),
        lambda masks: clear_standardize(Simulator(RING), what, z, masks),
        z,
    )
    x = RING.decode(z)
    right = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    assert (np.abs(got - right) / np.maximum(1, np.abs(right))).max() < 2.0**-12


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(12, 18), st.floats(0.01, 15), st.integers(0, 2**32 - 1))
def test_softmax_and_standardised_rows_of_any_shape(rows, columns, fraction, spread, seed):
    ring = Ring(64, fraction)
    z = ring.encode(np.clip(np.random.default_rng(seed).normal(size=(rows, columns)) * spread, -60, 60))
    x, soft_of, norm_of = (
        ring.decode(z),
        Softmax(rows, columns, 0, fraction),
        Standardization(rows, columns, fraction, 1e-3),
    )
    got = checked(
        soft_of.demands(ring),
        lambda p, s, m: softmax(p, s, soft_of, m),
        lambda masks: clear_softmax(Simulator(ring), soft_of, z, masks),
        z,
        fraction,
        ring,
    )
    assert np.abs(got - soft(x)).max() < 2.0**-12
    got = checked(
        norm_of.demands(ring),
        lambda p, s, m: standardize(p, s, norm_of, m),
        lambda masks: clear_standardize(Simulator(ring), norm_of, z, masks),
        z,
        fraction,
        ring,
    )
    right = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
    assert np.abs(got - right).max() < 2.0**-9


def test_softmax_over_sockets():
    what, x = Softmax(4, 10, 0, 16), np.random.default_rng(0).normal(size=(4, 10))
    shares, supplies = share(RING, RING.encode(x)), Dealer(RING).supplies(what.demands(RING))

    def program(channel):
        me = channel.party
        materials = [supplies[me].draw(demand) for demand in what.demands(RING)]
        return softmax(Party(me, RING, channel), shares[me], what, materials), channel.meter.reading()

    (first, one), (second, two) = run_parties(program, program)
    got = RING.decode(reconstruct(RING, first, second), what.result_fraction)
    np.testing.assert_allclose(got, soft(x), atol=2.0**-12)
    counted((one, two), what.cost(RING))


@pytest.mark.parametrize("spread", [0.0, 20.0])
def test_what_a_party_receives_is_uniform_whatever_the_values(spread):
    x = np.where(np.arange(64) % 2, spread, -spread) * np.ones((300, 1))
    soft_of, norm_of = Softmax(300, 64, 0, 16), Standardization(300, 64, 16, 1e-5)
    for what, protocol in ((soft_of, softmax), (norm_of, standardize)):
        shares, supplies = share(RING, RING.encode(x)), Dealer(RING).supplies(what.demands(RING))
        drawn = [[supply.draw(demand) for demand in what.demands(RING)] for supply in supplies]
        outcome = run_two(RING, lambda p, w=what, f=protocol, s=shares, d=drawn: f(p, s[p.number], w, d[p.number]))
        for received in outcome.received:
            seen = [m.array.view(np.uint8).reshape(-1) for m in received if m.array.dtype == np.uint64]
            counts = np.bincount(np.concatenate(seen), minlength=256)
            expected = counts.sum() / 256
            assert ((counts - expected) ** 2 / expected).sum() < 255 + 8 * 22.6


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exponential(3, 16, 64, 4, 1, 40, 18).fields(RING),
        lambda: CoarseMaximum(3, 3, 50, 17, 6, 24).fields(RING),
        lambda: CoarseMaximum(1, 1 << 16, 0, 17, 6, 24).fields(RING),
        lambda: Normalization(3, 5, 5).fields(RING),
        lambda: RowScaling(3, 3, 40, True).fields(RING),
        lambda: Softmax(3, 5000, 0, 16).demands(RING),
        lambda: Standardization(3, 5, 16, 0.0).demands(RING),
        lambda: Inverse("sine", 3, 16, 8, 24, 16).weights(),
        lambda: Iterated("sine", 3),
    ],
)
def test_sizes_without_meaning_are_refused(make):
    with pytest.raises(ConfigError):
        make()
