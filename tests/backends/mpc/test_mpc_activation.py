"""Truncation, sign and ReLU: every input and every mask of small rings, boundary values at 32 and 64 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.mpc.toy_material import play
from edgeward.backends.mpc.planes import pack
from edgeward.backends.mpc.protocols.activation import Relu, Sign, relu, sign
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.core.errors import ConfigError

# (bits, shift, width, chunk, radix)
TOYS = [
    (8, 0, 8, 4, 4),
    (8, 0, 8, 1, 2),
    (8, 0, 8, 2, 3),
    (8, 0, 8, 1, 7),
    (8, 0, 5, 3, 2),
    (8, 3, 5, 2, 2),
    (8, 3, 4, 1, 4),
    (8, 2, 6, 4, 4),
    (8, 6, 2, 4, 4),
    (8, 1, 7, 1, 8),
    (7, 2, 5, 1, 3),
    (6, 1, 5, 2, 2),
    (3, 1, 2, 1, 2),
]


def every(ring, shift, width):
    """Return every allowed value with every mask and every one-time bit, as flat elements."""
    if shift:
        limit = min(1 << (ring.bits - 2), 1 << (width - 1 + shift))
        # One unit more than the floor must also fit.
        z = np.arange(-limit, limit - (1 << shift) if limit < 1 << (ring.bits - 2) else limit)
    else:
        z = np.arange(-(1 << (width - 1)), 1 << (width - 1))
    grids = np.meshgrid(z, np.arange(1 << ring.bits), np.arange(2), indexing="ij")
    z, mask, choice = (grid.reshape(-1) for grid in grids)
    return ring.from_integers(z), ring.from_integers(mask), choice.astype(bool)


def opened(ring, outcome):
    return reconstruct(ring, *outcome.results)


def run(ring, demand, program, z, values):
    shares = share(ring, z, 2 * ring.fraction)
    return play(ring, demand, values, lambda party, material: program(party, shares[party.number], material))


@pytest.mark.parametrize(("bits", "shift", "width", "chunk", "radix"), TOYS)
def test_every_input_and_mask_of_a_small_ring(bits, shift, width, chunk, radix):
    ring, layout = Ring(bits, 0), Layout(width, chunk, radix)
    z, mask, choice = every(ring, shift, width)
    simulator, values = Simulator(ring), {"mask": mask, "choice": pack(choice)[None]}
    t = simulator.truncate(z, shift, mask)
    assert np.isin(ring.signed(t) - (ring.signed(z) >> shift), (0, 1)).all()

    def both(program, demand):
        return opened(ring, run(ring, demand, program, z, values))

    np.testing.assert_array_equal(both(truncate, Truncation(len(z), shift)), t)
    np.testing.assert_array_equal(both(sign, Sign(len(z), shift, layout)), simulator.nonnegative(t, width))
    np.testing.assert_array_equal(both(relu, Relu(len(z), shift, layout)), simulator.relu(t, width))


@pytest.mark.parametrize(("bits", "radix"), [(3, 2), (4, 3), (5, 4), (5, 2)])
def test_every_mask_of_small_merges(bits, radix):
    """Every value, every mask and every bit that masks a merge; (5, 2) has a group whose equality is wanted too."""
    ring, layout = Ring(bits, 0), Layout(bits, 1, radix)
    opened_bits = [sum(merge.opened for merge in level) for level in layout.levels]
    axes = [np.arange(1 << size) for size in (bits, bits, *opened_bits)]
    z, mask, *masks = (grid.reshape(-1) for grid in np.meshgrid(*axes, indexing="ij"))
    values = {"mask": ring.from_integers(mask)}
    for level, (size, chosen) in enumerate(zip(opened_bits, masks, strict=True)):
        values[f"masks{level}"] = np.stack([pack((chosen >> i & 1).astype(bool)) for i in range(size)])
    elements = ring.from_integers(z)
    outcome = run(ring, Sign(len(z), 0, layout), sign, elements, values)
    np.testing.assert_array_equal(opened(ring, outcome), Simulator(ring).nonnegative(elements, bits))


def boundaries(limit):
    """Return integers near every power of two up to `limit`, both signs."""
    powers = [1 << i for i in range(limit.bit_length())]
    near = {s * (p + d) for p in powers for d in (-1, 0, 1) for s in (-1, 1)} | {0, -limit, limit - 1}
    return np.array(sorted(v for v in near if -limit <= v < limit), dtype=np.int64)


LARGE = [
    (64, 16, Layout(32, 4, 4)),
    (64, 16, Layout(32, 1, 2)),
    (64, 12, Layout(40, 4, 8)),
    (64, 16, Layout(48, 3, 3)),
    (64, 0, Layout(64, 4, 4)),
    (64, 0, Layout(32, 5, 7)),
    (32, 10, Layout(22, 4, 4)),
    (32, 12, Layout(20, 8, 3)),
]


@pytest.mark.parametrize(("bits", "shift", "layout"), LARGE)
def test_boundary_values_and_boundary_masks_of_full_rings(bits, shift, layout):
    ring = Ring(bits, 12)
    limit = min(1 << (bits - 2), 1 << (layout.width - 1 + shift)) if shift else 1 << (layout.width - 1)
    z = boundaries(limit)
    z = z[z < limit - (1 << shift)] if shift and limit < 1 << (bits - 2) else z
    masks = boundaries(1 << (bits - 1))[:: max(1, bits // 8)]
    pairs = np.stack(np.meshgrid(z, masks, indexing="ij")).reshape(2, -1)
    elements, mask = ring.from_integers(pairs[0]), ring.from_integers(pairs[1])
    simulator = Simulator(ring)
    t = simulator.truncate(elements, shift, mask)
    for program, demand, right in (
        (truncate, Truncation(len(mask), shift), t),
        (sign, Sign(len(mask), shift, layout), simulator.nonnegative(t, layout.width)),
        (relu, Relu(len(mask), shift, layout), simulator.relu(t, layout.width)),
    ):
        outcome = run(ring, demand, program, elements, {"mask": mask})
        np.testing.assert_array_equal(opened(ring, outcome), right)
        assert {(m.sent, m.rounds) for m in outcome.meters} == {(demand.cost(ring).bytes, demand.cost(ring).rounds)}
    assert np.isin(ring.signed(t) - (pairs[0] >> shift), (0, 1)).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**46), 2**46 - 1), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(2, 8),
    st.integers(32, 48),
)
def test_relu_of_any_values_with_dealt_material(values, chunk, radix, width):
    ring, demand = Ring(64, 16), Relu(len(values), 16, Layout(width, chunk, radix))
    z = ring.from_integers(np.array(values))
    shares = share(ring, z, 32)
    outcome = rehearse(ring, [demand], lambda party, supply: relu(party, shares[party.number], supply.draw(demand)))
    got, floor = ring.signed(opened(ring, outcome)), np.maximum(np.array(values) >> 16, 0)
    assert np.isin(got - floor, (0, 1)).all()
    assert outcome.results[0].fraction == 16
    reading, cost = outcome.meters[0], demand.cost(ring)
    assert (reading.sent, reading.received, reading.rounds) == (cost.bytes, cost.bytes, cost.rounds)


def test_the_default_relu_declares_ten_bytes_and_four_rounds():
    ring, demand = Ring(64, 16), Relu(8000, 16)
    assert (demand.cost(ring).bytes / 8000, demand.cost(ring).rounds) == (10.0, 4)
    # 8 high, 2 top, 8 bit, 8 + 2 products, 1/8 sign, 112/8 tables, 38/8 products of masks.
    assert demand.offline_bytes(ring) / 8000 == 8 + 2 + 8 + 8 + 2 + (1 + 112 + 38) / 8


@pytest.mark.parametrize("shift", [10, 62])
def test_a_comparison_wider_than_the_truncated_ring_is_refused(shift):
    with pytest.raises(ConfigError, match="wider than"):
        Relu(3, shift, Layout(60)).fields(Ring(64, 16))
    with pytest.raises(ConfigError, match="no such shift"):
        Truncation(3, 63).fields(Ring(64, 16))
