"""Three parties: every value and share of small rings, boundary values at 64 bits, declared traffic, uniform views."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgeward.backends.mpc.planes import pack
from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Convolution
from edgeward.backends.mpc.replicated.activation import relu, relu_moves, sign, step_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated, ReplicatedBits, Seeds
from edgeward.backends.mpc.replicated.neighbours import run_three
from edgeward.backends.mpc.replicated.products import conjunction, linear, matrix_multiply, multiply, product_moves
from edgeward.backends.mpc.replicated.schedule import from_one, play, rotation, under
from edgeward.backends.mpc.replicated.truncation import truncate, truncation_moves
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.transport.failures import ChannelError
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes

SEEDS = rotation(32, "seeds")


def three(ring, x, draws, v=None, fraction=0):
    """Return the three parties' shares of x, the last of the three shares being v where it is given."""
    parts = [draws.integers(0, 2**64, x.shape, np.uint64) for _ in range(3)]
    parts = [ring.wrap(part) for part in parts]
    parts[2] = parts[2] if v is None else v
    parts[0] = ring.wrap(x - parts[1] - parts[2])
    return [Replicated(parts[i], parts[(i + 1) % 3], fraction) for i in range(3)]


def joined(ring, results):
    """Return the value, after checking that neighbours agree on the share they both hold."""
    for i in range(3):
        np.testing.assert_array_equal(results[i].next, results[(i + 1) % 3].own)
    return ring.wrap(results[0].own + results[1].own + results[2].own)


def ran(ring, program, *values):
    """Run program(member, *shares) as three parties; return the value, the readings and what each party received."""

    def party(number, link):
        member = Member(number, ring, link)
        before = link.meter.reading()
        result = program(member, *(value[number] for value in values))
        return result, link.meter.reading() - before, link.received[1:]

    results, readings, received = zip(*run_three(party, keep=True), strict=True)
    return results, readings, received


def as_declared(readings, moves):
    """Compare what was counted with what the moves say, label by label, at each party."""
    for counted, declared in zip(readings, play(moves, SEEDS)[1], strict=True):
        assert dict(counted.traffic) == dict(declared.traffic)


TOYS = [
    (8, 0, 8, 4),
    (8, 0, 8, 1),
    (8, 0, 8, 3),
    (8, 0, 2, 2),
    (8, 3, 5, 2),
    (8, 2, 6, 4),
    (8, 6, 2, 4),
    (8, 1, 7, 8),
    (7, 2, 5, 1),
    (6, 1, 5, 2),
    (3, 1, 2, 1),
]


@pytest.mark.parametrize(("bits", "shift", "width", "chunk"), TOYS)
def test_every_value_and_every_last_share_of_a_small_ring(bits, shift, width, chunk):
    ring, layout, simulator = Ring(bits, 0), Layout(width, chunk, 2), Simulator(Ring(bits, 0))
    low, high = -(1 << (bits - 2)), (1 << (bits - 2)) - (1 << shift)
    low, high = (low, high) if shift else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    x, v = (grid.reshape(-1) for grid in np.meshgrid(np.arange(low, high + 1), np.arange(1 << bits), indexing="ij"))
    draws = np.random.default_rng(bits * 100 + shift)
    shares = three(ring, ring.from_integers(x), draws, ring.from_integers(v))
    results, readings, _ = ran(ring, lambda member, z: truncate(member, z, shift), shares)
    t = joined(ring, results)
    floor = x >> shift
    assert np.isin(ring.signed(t) - floor, (0, 1)).all()
    exact = x % (1 << shift) == 0
    np.testing.assert_array_equal(ring.signed(t)[exact], floor[exact])
    as_declared(readings, truncation_moves(ring, len(x), shift, "truncate"))
    if bits - shift >= 3:
        # Over all masks the mean is the value itself: rounding up has the dropped fraction as its probability.
        means = ring.signed(t).reshape(-1, 1 << bits).mean(1)
        np.testing.assert_array_equal(means, x.reshape(-1, 1 << bits)[:, 0] / (1 << shift))
    fits = np.flatnonzero((floor >= -(1 << (width - 1))) & (floor + 1 < 1 << (width - 1)) | (shift == 0))
    fits = fits[np.abs(ring.signed(t)[fits] * 2 + 1) < 1 << width]
    few = [Replicated(s.own[fits], s.next[fits], 0) for s in shares]
    results, readings, _ = ran(ring, lambda member, z: relu(member, z, shift, layout), few)
    np.testing.assert_array_equal(joined(ring, results), simulator.relu(t[fits], width))
    as_declared(readings, relu_moves(ring, len(fits), shift, layout, "relu"))
    results, readings, _ = ran(ring, lambda member, z: sign(member, z, shift, layout), few)
    np.testing.assert_array_equal(joined(ring, results), simulator.nonnegative(t[fits], width))
    as_declared(readings, step_moves(ring, len(fits), layout, "sign"))


def boundaries(limit):
    """Return integers near every power of two up to `limit`, both signs."""
    powers = [1 << i for i in range(limit.bit_length())]
    near = {s * (p + d) for p in powers for d in (-1, 0, 1) for s in (-1, 1)} | {0, -limit, limit - 1}
    return np.array(sorted(v for v in near if -limit <= v < limit), dtype=np.int64)


LARGE = [
    (64, 16, Layout(32)),
    (64, 16, Layout(48, 3)),
    (64, 0, Layout(64)),
    (64, 0, Layout(32, 1)),
    (32, 10, Layout(22)),
]


@pytest.mark.parametrize(("bits", "shift", "layout"), LARGE)
def test_boundary_values_with_boundary_shares_of_full_rings(bits, shift, layout):
    ring, simulator = Ring(bits, 12), Simulator(Ring(bits, 12))
    limit = min(1 << (bits - 2), 1 << (layout.width - 1 + shift))
    z = boundaries(limit) if shift else boundaries(1 << (layout.width - 1))
    z = z[z <= limit - (2 << shift)] if shift else z
    masks = boundaries(1 << (bits - 1))[:: max(1, bits // 8)]
    x, v = (grid.reshape(-1) for grid in np.meshgrid(z, masks, indexing="ij"))
    shares = three(ring, ring.from_integers(x), np.random.default_rng(1), ring.from_integers(v), 12 + shift)
    t = joined(ring, ran(ring, lambda member, s: truncate(member, s, shift), shares)[0])
    assert np.isin(ring.signed(t) - (x >> shift), (0, 1)).all()
    results, readings, _ = ran(ring, lambda member, s: relu(member, s, shift, layout), shares)
    np.testing.assert_array_equal(joined(ring, results), simulator.relu(t, layout.width))
    assert results[0].fraction == 12
    as_declared(readings, relu_moves(ring, len(x), shift, layout, "relu"))


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(-(2**46), 2**46 - 2**17), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(32, 48),
    st.integers(0, 2**32),
)
def test_relu_of_any_values(values, chunk, width, seed):
    ring, layout = Ring(64, 16), Layout(width, chunk)
    shares = three(ring, ring.from_integers(np.array(values)), np.random.default_rng(seed), fraction=32)
    results, readings, _ = ran(ring, lambda member, z: relu(member, z, 16, layout), shares)
    floor = np.maximum(np.array(values) >> 16, 0)
    assert np.isin(ring.signed(joined(ring, results)) - floor, (0, 1)).all()
    as_declared(readings, relu_moves(ring, len(values), 16, layout, "relu"))


@pytest.mark.parametrize("bits", [8, 32, 64])
def test_products_of_every_kind(bits):
    ring, draws = Ring(bits, 2), np.random.default_rng(bits)

    def uniform(*shape):
        return ring.wrap(draws.integers(0, 2**64, shape, np.uint64))

    a, b, gain, image, kernel = uniform(5, 7), uniform(7, 3), uniform(1, 7), uniform(2, 4, 5, 6), uniform(6, 2, 3, 2)
    cases = [
        (multiply, (a, a), ring.wrap(a * a)),
        (multiply, (a, gain), ring.wrap(a * gain)),
        (matrix_multiply, (a, b), matmul(a, b, ring)),
    ]
    for program, factors, right in cases:
        results, readings, _ = ran(ring, program, *(three(ring, x, draws) for x in factors))
        np.testing.assert_array_equal(joined(ring, results), right)
        label = "matmul" if program is matrix_multiply else "multiply"
        as_declared(readings, product_moves(ring, right.shape, label))
    convolution = Convolution((2, 1), (1, 0), (1, 2), groups=2)
    maps, weights = [convolution, convolution], [kernel, ring.wrap(kernel + kernel)]
    shares = [three(ring, w, draws) for w in weights]
    results, _, _ = ran(ring, lambda member, x, *ws: linear(member, maps, x, ws), three(ring, image, draws), *shares)
    for i, w in enumerate(weights):
        np.testing.assert_array_equal(joined(ring, [r[i] for r in results]), convolution.apply(ring, image, w))


def test_every_row_of_the_truth_table_of_and():
    shares = np.array([[i >> k & 1 for k in range(6)] for i in range(64)], bool)
    planes = [pack(shares[:, k])[None] for k in range(6)]
    x, y = ([ReplicatedBits(p[i], p[(i + 1) % 3]) for i in range(3)] for p in (planes[:3], planes[3:]))
    results, readings, _ = ran(Ring(8, 0), conjunction, x, y)
    right = shares[:, :3].sum(1) % 2 * (shares[:, 3:].sum(1) % 2)
    np.testing.assert_array_equal(results[0].own[0] ^ results[1].own[0] ^ results[2].own[0], pack(right.astype(bool)))
    np.testing.assert_array_equal(results[2].next, results[0].own)
    as_declared(readings, rotation(8, "and"))


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_input_of_any_party_opening_to_all_and_to_one(owner):
    ring = Ring(64, 16)
    x = ring.from_integers(np.arange(-5, 7).reshape(3, 4))

    def program(member):
        mine = member.enter(x if member.number == owner else None, x.shape, 16, owner, "input")
        return mine, member.open(mine), member.reveal(mine, to=(owner + 1) % 3)

    results, readings, _ = ran(ring, program)
    np.testing.assert_array_equal(joined(ring, [r[0] for r in results]), x)
    for number, (_, opened, told) in enumerate(results):
        np.testing.assert_array_equal(opened, x)
        assert (told is not None) == (number == (owner + 1) % 3)
    moves = (
        *from_one(owner, 96, "input"),
        *rotation(96, "open"),
        *from_one((owner + 2) % 3, 96, "result"),
    )
    as_declared(readings, moves)


def test_a_default_relu_declares_76_bytes_over_three_parties_and_what_each_waits_for():
    ring = Ring(64, 16)
    readings = play(under("relu", relu_moves(ring, 8000, 16, Layout())), SEEDS)[1]
    # Codes 113 bits, 15 looked-up bits, 11 merged ones; 3 elements, 2 short ones; the result.
    by_party = [reading.sent / 8000 for reading in readings]
    assert by_party == [(113 + 15 + 11) / 8 + 3 * 8 + 2 * 2 + 8, (15 + 11) / 8 + 8, (15 + 11) / 8 + 8]
    assert max(reading.rounds for reading in readings) == 6


def chi_square(content):
    return stats.chisquare(np.bincount(content, minlength=256)).pvalue


@pytest.mark.parametrize("value", [0, 1, -(2**40)])
def test_what_each_party_receives_is_uniform_whatever_the_value(value):
    ring, count = Ring(64, 16), 4000
    x = ring.from_integers(np.full(count, value))

    def program(member):
        shared = member.enter(x if member.number == 0 else None, x.shape, 32, 0, "input")
        squared = multiply(member, shared, shared)
        return relu(member, truncate(member, shared, 16), 0), relu(member, squared, 16)

    _, _, received = ran(ring, program)
    for messages in received:
        assert len(messages) > 5
        for message in messages:
            assert chi_square(message.array.reshape(-1).view(np.uint8)) > 1e-6, message.label


def test_the_uniformity_test_notices_a_value_that_is_not_masked():
    ring = Ring(64, 16)
    shares = three(ring, ring.from_integers(np.zeros(4000)), np.random.default_rng(0))
    _, _, received = ran(ring, lambda member, z: member.pass_on(member.ring.wrap(z.own - z.own), "bare"), shares)
    assert chi_square(received[0][0].array.view(np.uint8)) < 1e-6


def test_the_same_value_never_looks_the_same_twice():
    ring = Ring(64, 16)
    shares = three(ring, ring.from_integers(np.arange(100)), np.random.default_rng(0), fraction=32)

    def twice(member, z):
        return [relu(member, z, 16, label=label) for label in ("a", "b")]

    _, _, received = ran(ring, twice, shares)
    for messages in received:
        half = len(messages) // 2
        for first, second in zip(messages[:half], messages[half:], strict=True):
            assert not np.array_equal(first.array, second.array)


def test_a_party_that_fails_stops_the_others():
    def program(number, link):
        member = Member(number, Ring(), link)
        if number == 1:
            raise ValueError("a fault of its own")
        return member.pass_on(np.zeros(3, np.uint64), "step")

    with pytest.raises(ValueError, match="a fault of its own"):
        run_three(program)
    with pytest.raises(ChannelError, match="another step"):
        run_three(lambda number, link: Member(number, Ring(), link).pass_on(np.zeros(3, np.uint8), f"step{number}"))


def test_refusals():
    seeds = Seeds(SecretBytes.draw(32), SecretBytes.draw(32))
    with pytest.raises(TypeError, match="not copied"):
        seeds.__reduce__()
    ring = Ring(64, 16)
    shares = three(ring, ring.from_integers(np.zeros(3)), np.random.default_rng(0))
    for program, words in (
        (lambda member, z: truncate(member, z, 63), "no such shift"),
        (lambda member, z: relu(member, z, 40, Layout(32)), "wider than"),
        (lambda member, z: member.enter(None, (3,), 16, member.number, "input"), "the owner brings"),
    ):
        with pytest.raises(ConfigError, match=words):
            ran(ring, program, shares)
    assert "shape" in repr(shares[0])
    assert str(shares[0].own[0]) not in repr(shares[0])
