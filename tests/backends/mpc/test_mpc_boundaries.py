"""Curves, exponentials, leading bits and rows at 64 bits: the ends of their ranges, the ends of the masks."""

import numpy as np
import pytest

from backends.mpc.test_mpc_activation import boundaries
from backends.mpc.toy_material import play
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum, below_maximum
from edgeward.backends.mpc.protocols.comparison_layout import VARIANTS, variant
from edgeward.backends.mpc.protocols.curved import Curved, curved
from edgeward.backends.mpc.protocols.exponential import exponential, exponential_between
from edgeward.backends.mpc.protocols.normalization import Normalization, normalize
from edgeward.backends.mpc.protocols.presets import SHAPES, tailed
from edgeward.backends.mpc.protocols.rows import RowScaling, open_rows
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.protocols.standardize import Standardization, standardize
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.simulator_math import (
    clear_below_maximum,
    clear_curved,
    clear_exponential,
    clear_normalize,
)
from edgeward.core.errors import ConfigError

RING = Ring(64, 16)
MASKS = np.array([0, 1, 2**16 - 1, 2**16, 2**32, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1], np.uint64)


def crossed(values):
    """Return every value with every mask, as elements and masks."""
    return RING.from_integers(np.repeat(np.asarray(values, np.int64), len(MASKS))), np.tile(MASKS, len(values))


def opened(demand, masks, z, program, ring=RING):
    """Return what `program` makes of `z` under these masks, as elements of `ring`."""
    shares = share(RING, z)
    outcome = play(RING, demand, {"mask": masks}, lambda party, m: program(party, shares[party.number], m))
    return reconstruct(ring, *outcome.results)


@pytest.mark.parametrize("shift", [0, 16])
@pytest.mark.parametrize("name", SHAPES)
def test_activations_at_the_ends_of_the_comparison(name, shift):
    what = tailed(name, RING)
    limit, bounds = 2**31, (what.low, what.high)
    candidates = {*boundaries(limit).tolist(), *(bound + step for bound in bounds for step in (-1, 0, 1))}
    candidates |= {min(bounds) + limit - 2, max(bounds) - limit}
    t = np.array(sorted(v for v in candidates if all(-limit <= v - bound < limit - 1 for bound in bounds)))
    z, mask = crossed(t << shift)
    masks = np.stack([mask, np.random.default_rng(0).permutation(mask)])
    demand = Curved(len(z), shift, what)
    got = opened(demand, masks, z, curved)
    np.testing.assert_array_equal(got, clear_curved(Simulator(RING), demand, z, masks))
    # Beyond the bounds the result is the tail, whatever the table gave there.
    number, signed = np.repeat(t, len(MASKS)), RING.signed(got)
    assert (signed[number < what.low] == what.below).all()
    far = number >= what.high
    np.testing.assert_array_equal(signed[far], number[far] if what.above is None else what.above)


@pytest.mark.parametrize(("low", "high"), [(-64, 0), (-20, 11)])
def test_exp_at_both_ends(low, high):
    f = RING.fraction
    t = [low << f, (low << f) + 1, -(1 << f), -1, 0, (high << f) - 1]
    z, mask = crossed(t)
    demand = exponential_between(RING, len(z), low, high, 12)
    small = Ring(demand.domain_bits, 0)
    masks = small.wrap(mask)
    got = opened(demand, masks, z, lambda party, x, m: exponential(party, x.elements, m))
    np.testing.assert_array_equal(got, clear_exponential(RING, demand, small.wrap(z), masks))
    right = np.exp(np.repeat(t, len(MASKS)) / 2.0**f)
    error = np.abs(RING.decode(got, demand.scale + demand.power) - right)
    assert (error < 2.0**-16 * right + 2.0**-12).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_leading_bit_of_64(name):
    z = np.array(sorted({v for i in range(63) for v in (1 << i, (1 << i) + 1, (2 << i) - 1)}), np.int64)
    z, mask = crossed(z)
    demand = Normalization(len(z), 0, 62, variant(name))

    def program(party, x, material):
        found = normalize(party, x, material)
        return Shared(np.stack([found.value.elements, found.weighted(party, range(63), 0).elements]), 0)

    value, weight = opened(demand, mask, z, program)
    np.testing.assert_array_equal(value, clear_normalize(RING, demand, z)[0])
    np.testing.assert_array_equal(weight, [int(v).bit_length() - 1 for v in z])


@pytest.mark.parametrize("shift", [0, 16, 40])
def test_the_coarse_maximum_at_the_ends_of_its_range(shift):
    f = RING.fraction
    ends = np.array([-64 << f, (-64 << f) + 1, -1, 0, 1, (62 << f) - 1], np.int64)
    rows = np.array([(a, b, c) for a in ends for b in ends for c in (ends[0], ends[-1])]) << shift
    z = RING.from_integers(np.repeat(rows, len(MASKS), axis=0))
    mask = np.stack([np.roll(np.tile(MASKS, len(rows)), i) for i in range(3)], axis=1)
    demand = CoarseMaximum(len(z), 3, shift, f + 1, 6, f + 8)
    got = opened(demand, mask.reshape(-1), z, lambda p, x, m: Shared(below_maximum(p, x, m), f), Ring(f + 8, 0))
    np.testing.assert_array_equal(got, clear_below_maximum(Simulator(RING), demand, z, mask))
    largest = Ring(f + 8, 0).signed(got).max(axis=1)
    assert (np.abs(largest) < 2 << f).all()


def test_rows_at_the_ends_of_the_truncation():
    limit = 2**62
    z, mask = crossed([-limit, 1 - limit, -(2**47), -1, 0, 1, 2**47, limit - 1])
    # Pairs of values and masks, also of unequal ones.
    elements, masks = (np.stack([v, np.roll(v, 13)], axis=1) for v in (z, mask))
    demand = RowScaling(len(z), 2, 31, True)
    factors = share(RING, RING.from_integers(np.arange(len(z)) - 40))

    def program(party, x, material):
        rows = open_rows(party, x, material)
        squares, scaled = rows.squares(), rows.scaled(factors[party.number])
        return Shared(np.concatenate([squares.elements[:, None], scaled.elements], axis=1), 0)

    got = opened(demand, masks.reshape(-1), elements, program)
    t = Simulator(RING).truncate(elements, 31, masks)
    factor = RING.from_integers(np.arange(len(z)) - 40)[:, None]
    np.testing.assert_array_equal(got, np.concatenate([(t * t).sum(1, keepdims=True, dtype=np.uint64), t * factor], 1))


def run(what, protocol, x):
    z = RING.encode(x)
    shares, demands = share(RING, z), what.demands(RING)
    outcome = rehearse(
        RING, demands, lambda p, supply: protocol(p, shares[p.number], what, [supply.draw(d) for d in demands])
    )
    return RING.decode(reconstruct(RING, *outcome.results), what.result_fraction), RING.decode(z)


@pytest.mark.parametrize("columns", [1, 2, 3, 64, 500])
def test_softmax_of_extreme_rows(columns):
    """All equal at both ends, one far above the others, one just above; a single column gives 1."""
    x = np.full((6, columns), -64.0)
    x[1], x[2, 0], x[3, -1], x[4] = 62 - 2.0**-16, 62 - 2.0**-16, -64 + 2.0**-16, 0
    x[5] = np.linspace(-64, 61, columns)
    got, z = run(Softmax(6, columns, 0, 16), softmax, x)
    terms = np.exp(z - z.max(axis=1, keepdims=True))
    assert np.abs(got - terms / terms.sum(axis=1, keepdims=True)).max() < 2.0**-14


@pytest.mark.parametrize("columns", [2, 3, 64, 500])
def test_standardised_rows_at_the_ends(columns):
    """Constant rows give 0 exactly, also far from 0; the others fill the variance."""
    x = np.zeros((5, columns))
    x[0], x[1], x[2] = 7.5, -30000, 2.0**-16
    x[3] = np.where(np.arange(columns) % 2, 31.5, -31.5)
    x[4, 0] = 31.5 * np.sqrt(columns)
    got, z = run(Standardization(5, columns, 16, 1e-5), standardize, x)
    assert np.abs(got[:3]).max() < 2.0**-13
    right = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
    assert np.abs((got - right) / np.maximum(1, np.abs(right))).max() < 2.0**-11


def test_standardised_rows_without_room_say_so():
    Standardization(3, 512, 17, 1e-5).demands(RING)
    with pytest.raises(ConfigError, match="no such standardization"):
        Standardization(3, 64, 20, 1e-5).demands(Ring(64, 20))
