"""Look-ups and activations with tails: every input and mask of small rings, errors and costs at 64 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.mpc.toy_material import play
from edgeward.backends.mpc.planes import pack
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.curve import FUNCTIONS, Curve, pieces, powers, worst_error
from edgeward.backends.mpc.protocols.curved import Curved, Tailed, curved
from edgeward.backends.mpc.protocols.lookup import Lookup, lookup
from edgeward.backends.mpc.protocols.presets import SHAPES, tailed
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.simulator_math import clear_curved, clear_lookup
from edgeward.core.errors import ConfigError


def result(ring, outcome):
    return reconstruct(ring, *outcome.results)


def counted(outcome, cost):
    assert {(m.sent, m.received, m.rounds) for m in outcome.meters} == {(cost.bytes, cost.bytes, cost.rounds)}


def right(name, x):
    """Return the activation itself, tails included."""
    x = np.asarray(x, float)
    if name == "hard_sigmoid":
        return np.clip(x / 6 + 0.5, 0, 1)
    return x * np.clip(x / 6 + 0.5, 0, 1) if name == "hard_swish" else FUNCTIONS[name](x)


TOYS = [
    Curve("sigmoid", 2, 2, 2, 2, -2, 1, 8, 5),
    Curve("tanh", 3, 1, 1, 3, -1, 1, 8, 5),
    Curve("silu", 2, 3, 3, 1, -4, 3, 8, 4),
    Curve("hard_sigmoid", 1, 4, 2, 0, -2, 1, 8, 4),
]


@pytest.mark.parametrize("curve", TOYS)
def test_a_look_up_of_every_value_under_every_mask(curve):
    ring = Ring(8, curve.fraction)
    low, high = (
        int(number * curve.length * 2**curve.fraction) for number in (curve.first, curve.first + 2**curve.segments - 1)
    )
    z, mask = (grid.reshape(-1) for grid in np.meshgrid(np.arange(low, high), np.arange(256), indexing="ij"))
    elements, hidden = ring.from_integers(z), ring.from_integers(mask)
    shares = share(ring, elements)
    outcome = play(ring, Lookup(len(z), curve), {"mask": hidden}, lambda p, m: lookup(p, shares[p.number], m))
    got = result(ring, outcome)
    np.testing.assert_array_equal(got, clear_lookup(curve, elements, hidden))
    x = z / 2**curve.fraction
    rounding = (curve.degree + 2) * 2.0 ** -min(curve.power_bits, curve.scale - curve.power_bits)
    allowed = worst_error(curve, x.min(), x.max() + 1e-9) + rounding
    assert np.abs(ring.decode(got, curve.scale) - FUNCTIONS[curve.function](x)).max() < allowed


@pytest.mark.parametrize(
    ("below", "above", "shift", "layout"),
    [
        (0, 4, 0, Layout(8, 4, 4)),
        (0, None, 0, Layout(7, 2, 3)),
        (-3, None, 2, Layout(6, 1, 2)),
        (0, 4, 2, Layout(6, 3, 2)),
    ],
)
def test_an_activation_of_every_value_under_every_mask(below, above, shift, layout):
    ring = Ring(8, 2)
    demand_of = Tailed(Curve("sigmoid", 2, 2, 2, 2, -2, 1, 8, 5), -7, 4, below, above)
    limit = 1 << (layout.width - 1)
    t = np.arange(-limit + 5, limit - 8)
    t = t[(t >= -64 >> shift) & (t < 63 >> shift)] if shift else t
    z = np.concatenate([t * (1 << shift) + low for low in range(1 << shift)])
    grids = np.meshgrid(z, np.arange(256), np.arange(4), indexing="ij")
    z, mask, choice = (grid.reshape(-1) for grid in grids)
    own = np.random.default_rng(0).integers(0, 256, len(z))
    masks = np.stack([ring.from_integers(mask), ring.from_integers(own)])
    values = {"mask": masks, "choice": np.stack([pack(choice & 1 == 1), pack(choice & 2 == 2)])}
    elements, demand = ring.from_integers(z), Curved(len(z), shift, demand_of, layout)
    shares = share(ring, elements, 2 + shift)
    outcome = play(ring, demand, values, lambda p, m: curved(p, shares[p.number], m))
    got = result(ring, outcome)
    np.testing.assert_array_equal(got, clear_curved(Simulator(ring), demand, elements, masks))
    counted(outcome, demand.cost(ring))
    # Both tails and the curve between them were met.
    signed = ring.signed(got)
    assert (signed[z >> shift < -8] == below).all()
    assert (signed[z >> shift >= 4] == (above if above is not None else signed[z >> shift >= 4])).all()


NUMBERS = np.concatenate([np.linspace(-16, 16, 1501), [-16000.0, -100.0, 100.0, 16000.0, 0.0, 4.5, -4.5, 3.0, -3.0]])


@pytest.mark.parametrize("shift", [0, 16])
@pytest.mark.parametrize("name", SHAPES)
def test_activations_err_by_less_than_16_units(name, shift):
    ring, long = Ring(64, 16), Ring(64, 16 + shift)
    demand, z = Curved(len(NUMBERS), shift, tailed(name, ring)), long.encode(NUMBERS)
    masks = np.random.default_rng(1).integers(0, 2**64, (2, len(z)), dtype=np.uint64)
    masks[:, :4] = [[0], [2**64 - 1]]
    shares = share(ring, z, 16 + shift)
    outcome = play(ring, demand, {"mask": masks}, lambda p, m: curved(p, shares[p.number], m))
    got = result(ring, outcome)
    np.testing.assert_array_equal(got, clear_curved(Simulator(ring), demand, z, masks))
    error = np.abs(ring.decode(got) - right(name, NUMBERS)) / np.maximum(1, np.abs(right(name, NUMBERS)))
    assert error.max() < 2.0**-12
    counted(outcome, demand.cost(ring))
    assert (outcome.results[0].fraction, demand.cost(ring).rounds) == (16, 4)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(-1000, 1000), min_size=1, max_size=30),
    st.sampled_from(sorted(SHAPES)),
    st.integers(12, 18),
    st.sampled_from([Layout(40, 4, 8), Layout(34, 1, 2), Layout(36, keys=True)]),
)
def test_any_numbers_formats_and_comparisons_with_dealt_material(numbers, name, fraction, layout):
    ring = Ring(64, fraction)
    demand, z = Curved(len(numbers), 0, tailed(name, ring), layout), ring.encode(np.array(numbers))
    shares = share(ring, z)
    outcome = rehearse(ring, [demand], lambda p, supply: curved(p, shares[p.number], supply.draw(demand)))
    y = right(name, ring.decode(z))
    assert (np.abs(ring.decode(result(ring, outcome)) - y) / np.maximum(1, np.abs(y))).max() < 2.0 ** -min(
        12, fraction - 4
    )
    counted(outcome, demand.cost(ring))


@pytest.mark.parametrize("above", [1 << 16, None])
def test_a_table_in_a_smaller_ring_is_lifted(above):
    ring, curve = Ring(64, 16), Curve("sigmoid", 16, 7, 4, 7, -8, 5, 32, 28)
    small, draws = Tailed(curve, -10 << 16, 10 << 16, 0, above), np.random.default_rng(2)
    demand, z = Curved(len(NUMBERS), 0, small), ring.encode(NUMBERS)
    masks = draws.integers(0, 2**64, (2, len(z)), dtype=np.uint64)
    masks[1, :4] = [0, 2**32 - 1, 2**31, 2**31 - 1]
    shares = share(ring, z)
    outcome = play(ring, demand, {"mask": masks}, lambda p, m: curved(p, shares[p.number], m))
    np.testing.assert_array_equal(result(ring, outcome), clear_curved(Simulator(ring), demand, z, masks))
    counted(outcome, demand.cost(ring))
    assert demand.cost(ring).bytes < Curved(len(z), 0, tailed("sigmoid", ring)).cost(ring).bytes
    inside = np.abs(NUMBERS) < 10
    assert np.abs(ring.decode(result(ring, outcome)) - right("sigmoid", NUMBERS))[inside].max() < 2.0**-11


def test_known_costs():
    ring = Ring(64, 16)
    demand = Curved(8000, 16, tailed("gelu", ring))
    # 8 opened, 8 for the curve's value, 2 comparisons of 15 bits, 2 choices.
    assert (demand.cost(ring).bytes / 8000, demand.cost(ring).rounds) == (8 + 8 + 4, 4)
    assert demand.tailed.curve.table_bytes == 9 * 8 * 8
    # Table; high and top; 2 bits; value's high and top (24 bits: 4) twice; bit's high and top; sign, tables, products.
    assert demand.offline_bytes(ring) / 8000 == 576 + 10 + 16 + 16 + 8 + 10 + (1 + 112 + 2 * 38) / 8


def test_pieces_are_good_on_both_sides_of_their_place():
    for name, shape in SHAPES.items():
        curve = tailed(name, Ring(64, 16)).curve
        assert worst_error(curve, -shape.bound, shape.bound) < 2.0**-13
        assert pieces(curve).shape == (1 << curve.segments, curve.degree + 1)


def test_powers_are_integers_that_every_machine_computes_alike():
    curve = Curve("gelu", 16, 6, 3, 3, -4, 5)
    assert [int(p[0]) for p in powers(curve, np.array([3 << 17], np.uint64))] == [3 << 17, 9 << 15, 27 << 13]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve("cosine", 16, 6, 3, 3),
        lambda: Curve("gelu", 16, -13, 3, 3),
        lambda: Curve("gelu", 16, 6, 3, 3, scale=64),
        lambda: tailed("cosine", Ring()),
        lambda: Curved(3, 60, tailed("gelu", Ring())).fields(Ring()),
        lambda: Lookup(3, Curve("gelu", 16, 6, 3, 3, bits=32, scale=20)).fields(Ring()),
    ],
)
def test_curves_without_meaning_are_refused(make):
    with pytest.raises(ConfigError):
        make()
