"""Softmax, standardised rows and inverses among three parties: the two parties' oracle bit for bit, declared traffic.

With -u as the mask, u what party 0 knows of a value and parties 1 and 2 do not, three parties compute what two do.
"""

from dataclasses import replace

import numpy as np
import pytest

from backends.mpc.test_mpc_replicated import as_declared, boundaries, joined, ran, three
from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.exponential import Exponential
from edgeward.backends.mpc.protocols.inverse import Inverse
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.protocols.standardize import Standardization
from edgeward.backends.mpc.replicated import coarse_maximum, curves, truncation
from edgeward.backends.mpc.replicated import softmax as softmaxes
from edgeward.backends.mpc.replicated.coarse_maximum import below_maximum, maximum_moves
from edgeward.backends.mpc.replicated.exponential import exponential, exponential_moves, live_segments
from edgeward.backends.mpc.replicated.inverse import inverse, inverse_moves
from edgeward.backends.mpc.replicated.products import matrix_multiply, square_sums
from edgeward.backends.mpc.replicated.schedule import play
from edgeward.backends.mpc.replicated.softmax import softmax, softmax_moves
from edgeward.backends.mpc.replicated.standardize import standardize, standardize_moves
from edgeward.backends.mpc.replicated.words import single_ones, up_to
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.simulator_math import (
    clear_below_maximum,
    clear_exponential,
    clear_inverse,
    clear_softmax,
    clear_standardize,
)
from edgeward.core.errors import ConfigError

RING = Ring(64, 16)
ENDS = np.array([0, 1, 2**24 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)


def low_sides(ring, x, v):
    """Return what each party knows of x = u + v."""
    return [ring.wrap(x - v), v, v]


def recorded(monkeypatch):
    """Note at party 0 the masks that the values it splits and truncates have, in order."""
    masks = []
    real_sides, real_exponential = truncation.sides, softmaxes.exponential

    def watched(member, x, shift):
        if member.number == 0:
            masks.append(member.ring.wrap(np.negative(x.own + x.next)).reshape(-1))
        return real_sides(member, x, shift)

    def watched_exponential(member, low, what, label):
        if member.number == 0:
            masks.append(Ring(what.domain_bits, 0).wrap(np.negative(low)).reshape(-1))
        return real_exponential(member, low, what, label)

    for module in (truncation, coarse_maximum, curves):
        monkeypatch.setattr(module, "sides", watched)
    monkeypatch.setattr(softmaxes, "exponential", watched_exponential)
    return masks


def of_inverse(masks, product=True):
    """Return masks as `clear_inverse` takes them: none for the comparisons, none for the product."""
    *before, table, last = masks
    return iter([*before, None, table, *([None] if product else []), last])


@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_a_word_has_its_one_where_both_numbers_add_up_to(bits):
    size = 1 << bits
    a, k = (grid.reshape(-1).astype(np.uint64) for grid in np.meshgrid(np.arange(size), np.arange(size)))

    def program(member):
        return single_ones(member, a if member.number == 0 else k + np.uint64(size), bits, "ones")

    words = ran(RING, program)[0]
    assert not words[0].any()
    joint = (words[1] ^ words[2]).astype(np.uint64)
    np.testing.assert_array_equal(joint, np.uint64(1) << (a + k) % np.uint64(size))
    one = joint.astype(words[1].dtype)
    np.testing.assert_array_equal(up_to(one), ~(one - one.dtype.type(1)))
    with pytest.raises(ConfigError, match="no such words"):
        ran(RING, lambda member: single_ones(member, a, 7, "ones"))


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_the_coarse_maximum_of_rows_of_a_small_ring(shift, columns):
    ring, draws = Ring(12, 2), np.random.default_rng(columns)
    rows, step, bins, domain = 2000, 2, 3, 8
    what, small = CoarseMaximum(rows, columns, shift, step, bins, domain), Ring(domain, 0)
    z = ring.from_integers(draws.integers(-16 << shift, 12 << shift, (rows, columns)))
    v = ring.from_integers(draws.integers(0, 1 << 12, z.shape))
    results, readings, _ = ran(ring, lambda m, x: below_maximum(m, x, what, "max"), three(ring, z, draws, v, 2))
    np.testing.assert_array_equal(results[1], results[2])
    got = small.wrap(results[0] + results[1])
    mask = ring.wrap(np.negative(z - v))
    np.testing.assert_array_equal(got, clear_below_maximum(Simulator(ring), what, z, mask))
    as_declared(readings, maximum_moves(what, "max"))


def test_exp_of_every_value_under_every_mask():
    ring, small = Ring(32, 3), Ring(8, 0)
    t, v = (g.reshape(-1) for g in np.meshgrid(np.arange(-6 * 32, 32), np.arange(256), indexing="ij"))
    what = Exponential(len(t), 3, 8, 3, 1, 14, 10)
    elements, known = small.from_integers(t), small.from_integers(v)
    lows = low_sides(small, elements, known)
    results, readings, _ = ran(ring, lambda member, low: exponential(member, low, what, "exp"), lows)
    got = joined(ring, results)
    np.testing.assert_array_equal(got, clear_exponential(ring, what, elements, small.wrap(known - elements)))
    assert (np.abs(ring.decode(got, 24) - np.exp(t / 8)) < np.exp(4) * 2.0**-14 + 2.0**-10 * np.exp(t / 8)).all()
    as_declared(readings, exponential_moves(ring, what, "exp"))
    # Segments whose factor rounds to zero are left out, and nothing else.
    assert 0 < len(live_segments(what)) < 8


@pytest.mark.parametrize("function", ["reciprocal", "inverse_root", "logarithm"])
@pytest.mark.parametrize("layout", [Layout(32), Layout(32, 3, keys=True)])
def test_inverses_over_their_whole_range_with_boundary_shares(function, layout, monkeypatch):
    masks, f = recorded(monkeypatch), RING.fraction
    first, last = f - 6, f + 11
    z = boundaries(1 << (last + 1))
    z = z[z >= 1 << first]
    z, v = np.repeat(z, len(ENDS)), np.tile(ENDS, len(z))
    scales = (f, 0 if function == "logarithm" else 13, 38)
    what = Inverse(function, len(z), f, first, last, *scales, style=layout)
    x = RING.from_integers(z)
    shares = three(RING, x, np.random.default_rng(0), v, f)
    results, readings, _ = ran(RING, lambda member, s: inverse(member, s, what, "inv"), shares)
    got = joined(RING, results)
    clear = clear_inverse(Simulator(RING), what, x, of_inverse(masks, function != "logarithm"))
    np.testing.assert_array_equal(got, clear)
    as_declared(readings, inverse_moves(RING, what, "inv"))
    numbers = RING.decode(x)
    right = {"reciprocal": 1 / numbers, "inverse_root": numbers**-0.5, "logarithm": np.log(numbers)}[function]
    assert (np.abs(RING.decode(got) - right) / np.maximum(1, right)).max() < 2.0**-12
    wrong = [s.__class__(s.own, s.next, f + 1) for s in shares]
    with pytest.raises(ConfigError, match="other numbers"):
        ran(RING, lambda member, s: inverse(member, s, what), wrong)


@pytest.mark.parametrize(("rows", "columns", "shift"), [(50, 10, 16), (7, 65, 19), (3, 1, 0), (2, 600, 16)])
def test_softmax_is_that_of_two_parties_bit_for_bit(rows, columns, shift, monkeypatch):
    masks, draws, what = recorded(monkeypatch), np.random.default_rng(rows), Softmax(rows, columns, shift, 16)
    logits = draws.normal(0, 12, (rows, columns)).clip(-64, 61.9)
    # Rows at the ends of the range, and of equal values.
    logits[0], logits[1, ::2], logits[1, 1::2] = -64, 61.999, -64
    z = RING.from_integers(np.rint(logits * 2.0 ** (16 + shift)))
    v = np.resize(ENDS, z.shape) if columns == 10 else None
    shares = three(RING, z, draws, v, 16 + shift)
    results, readings, _ = ran(RING, lambda member, x: softmax(member, x, what, "softmax"), shares)
    got = joined(RING, results)
    np.testing.assert_array_equal(got, clear_softmax(Simulator(RING), what, z, of_inverse(masks)))
    right = np.exp(logits - logits.max(1, keepdims=True))
    assert np.abs(RING.decode(got, what.result_fraction) - right / right.sum(1, keepdims=True)).max() < 2.0**-14
    assert results[0].fraction == what.result_fraction
    as_declared(readings, softmax_moves(RING, what, "softmax"))


@pytest.mark.parametrize(
    ("rows", "columns", "epsilon", "spread"),
    [(40, 32, 1e-5, 1.0), (5, 300, 1e-5, 30.0), (20, 2, 1e-3, 0.01), (9, 64, 1.0, 5.0), (3, 192, 1e-8, 0.5)],
)
def test_standardised_rows_are_those_of_two_parties_bit_for_bit(rows, columns, epsilon, spread, monkeypatch):
    masks, draws = recorded(monkeypatch), np.random.default_rng(columns)
    what = Standardization(rows, columns, 16, epsilon)
    numbers = draws.normal(3, spread, (rows, columns))
    numbers[0] = 7.0  # a row without deviation
    x = RING.encode(numbers)
    v = np.resize(ENDS, x.shape) if columns == 32 else None
    shares = three(RING, x, draws, v, 16)
    results, readings, _ = ran(RING, lambda member, s: standardize(member, s, what, "norm"), shares)
    got = joined(RING, results)
    np.testing.assert_array_equal(got, clear_standardize(Simulator(RING), what, x, of_inverse(masks)))
    exact = RING.decode(x)
    right = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + epsilon)
    assert np.abs(RING.decode(got, what.result_fraction) - right).max() < 2.0**-9
    as_declared(readings, standardize_moves(RING, what, "norm"))


def test_stacks_of_matrices_and_sums_of_squares_are_exact():
    for ring in (Ring(8, 0), Ring(64, 16)):
        draws = np.random.default_rng(ring.bits)
        x, y = (ring.from_integers(draws.integers(-(2**62), 2**62, shape)) for shape in ((5, 3, 4), (5, 4, 2)))
        results, _, _ = ran(ring, matrix_multiply, three(ring, x, draws), three(ring, y, draws))
        np.testing.assert_array_equal(joined(ring, results), x @ y)
        results, _, _ = ran(ring, square_sums, three(ring, x[0], draws, fraction=3))
        np.testing.assert_array_equal(joined(ring, results), (x[0] * x[0]).sum(1, dtype=ring.dtype))
        assert results[0].fraction == 6


def test_a_softmax_costs_what_its_docstrings_say():
    what = Softmax(800, 64, 16, 16)
    maximum, terms, *_ = what.demands(RING)
    readings = play(maximum_moves(maximum))[1]
    passed = 8 + 8 * 63 / 64 + 1 / 64
    assert [reading.sent / what.rows / what.columns for reading in readings] == [passed + 9, passed, passed]
    readings = play(exponential_moves(RING, terms))[1]
    assert sum(reading.sent for reading in readings) / terms.count == 2 + 3 * 3 / 8 + 4 * 8 + 3 * 8
    assert len(live_segments(terms)) == 3


RECIPROCAL = Inverse("reciprocal", 3, 16, 8, 28, 16, 13, 38)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (lambda member, x: softmax(member, x, Softmax(1, 5000, 0, 16)), "no such softmax"),
        (lambda member, x: softmax(member, x, Softmax(1, 3, 50, 16)), "no such maximum"),
        (lambda member, x: softmax(member, x, Softmax(3, 1, 0, 16)), "other rows"),
        (lambda member, x: standardize(member, x, Standardization(1, 1, 16, 1e-5)), "no such standardization"),
        (lambda member, x: inverse(member, x, replace(RECIPROCAL, first=-1)), "no such range"),
        (lambda member, x: inverse(member, x, replace(RECIPROCAL, last=8)), "no such range"),
        (lambda member, x: inverse(member, x, replace(RECIPROCAL, result_fraction=60)), "no such shift"),
        (lambda member, x: inverse(member, x, replace(RECIPROCAL, count=1)), "other numbers"),
        (lambda member, x: exponential(member, x.own, Exponential(1, 16, 24, 4, 1, 41, 17)), "other values"),
        (lambda member, x: exponential(member, x.own, Exponential(3, 16, 2, 4, 1, 41, 17)), "no such exponential"),
    ],
)
def test_sizes_without_a_protocol_are_refused_by_all_before_anything_is_sent(program, words):
    shares = three(RING, RING.encode(np.zeros((1, 3))), np.random.default_rng(0), fraction=16)

    def refused(member, x):
        with pytest.raises(ConfigError, match=words):
            program(member, x)

    for reading in ran(RING, refused, shares)[1]:
        assert reading.sent == 0
    with pytest.raises(ConfigError, match="no such standardization"):
        standardize_moves(RING, Standardization(1, 1, 16, 1e-5))
    with pytest.raises(ConfigError, match="no such range"):
        inverse_moves(RING, replace(RECIPROCAL, first=-1))


def test_a_mask_is_never_spread_over_several_values():
    x = RING.encode(np.zeros(5))

    def split(member):
        member.split([Field("one", (1,), 64, False)], [x] if member.number == 0 else None, "split")

    for program, words in (
        (split, "another size"),
        (lambda member: member.enter(x if member.number == 0 else None, (1,), 16, 0, "input"), "the owner brings"),
    ):
        with pytest.raises(ConfigError, match=words):
            ran(RING, program)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 9), (9, 1), (0, 3)])
def test_one_row_one_column_and_none_send_what_they_declare(shape):
    count, draws = shape[0] * shape[1], np.random.default_rng(0)
    numbers = draws.uniform(1, 5, shape)
    shares = three(RING, RING.from_integers(np.rint(numbers * 2**16)), draws, fraction=16)
    programs = [
        (softmax, softmax_moves, Softmax(*shape, 0, 16)),
        (inverse, inverse_moves, Inverse("logarithm", count, 16, 8, 28, 16, curve_scale=38)),
    ]
    if shape[1] > 1:
        programs.append((standardize, standardize_moves, Standardization(*shape, 16, 1e-5)))
    for run, moves, what in programs:
        results, readings, _ = ran(RING, lambda member, x, run=run, what=what: run(member, x, what, "run"), shares)
        assert joined(RING, results).shape == shape
        as_declared(readings, moves(RING, what, "run"))
