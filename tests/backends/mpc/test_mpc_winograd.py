"""Winograd's convolution over a ring against the direct one: exact on whole filters, within its units on others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.mpc.whole_runs import checked, seeded
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Convolution
from edgeward.backends.mpc.protocols.winograd import _FILTER, _INPUT, _OUTPUT, SPARE_BITS, Winograd, filters
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError
from edgeward.graph import capture
from edgeward.transforms.rewrite import WinogradTiles

DENOMINATOR = {2: 4, 4: 576}


def over_the_ring(ring, shape, seed):
    return ring.wrap(np.random.default_rng(seed).integers(0, 256, (*shape, 8), np.uint8).view(np.uint64)[..., 0])


@given(
    tile=st.sampled_from([2, 4]),
    bits=st.sampled_from([8, 13, 32, 48, 64]),
    size=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(3, 11), st.integers(3, 11)),
    outputs=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_whole_filters_give_the_direct_convolution_in_every_bit_whatever_wraps(
    tile, bits, size, outputs, padding, seed
):
    ring, draws = Ring(bits, 0), np.random.default_rng(seed)
    x = over_the_ring(ring, size, seed)
    g = DENOMINATOR[tile] * draws.integers(-5, 6, (outputs, size[1], 3, 3)).astype(np.float64)
    whole = filters(g, tile)
    assert np.array_equal(whole, np.rint(whole))
    map_, direct = Winograd(tile, padding), Convolution(padding=padding)
    w = ring.from_integers(np.rint(whole).astype(np.int64))
    expected = direct.apply(ring, x, ring.from_integers(g.astype(np.int64)))
    found = map_.apply(ring, x, w)
    assert found.shape == map_.output_shape(x.shape, w.shape) == expected.shape
    assert found.dtype == ring.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("tile", [2, 4])
def test_the_map_is_linear_in_both_arguments_so_that_masks_cancel(tile):
    ring, map_ = Ring(64, 16), Winograd(tile)
    x, a = (over_the_ring(ring, (2, 3, 9, 7), seed) for seed in (1, 2))
    w, b = (over_the_ring(ring, ((tile + 2) ** 2, 4, 3), seed) for seed in (3, 4))
    parts = [map_.apply(ring, p, q) for p in (x, a) for q in (w, b)]
    assert np.array_equal(map_.apply(ring, x + a, w + b), sum(parts[1:], parts[0]))


@pytest.mark.parametrize("tile", [2, 4])
def test_the_transforms_are_those_of_the_source(tile):
    """The bilinear identity on every pair of unit tile and unit filter, in one dimension, in rational numbers."""
    (g, denominator), b, a = _FILTER[tile], np.array(_INPUT[tile]), np.array(_OUTPUT[tile])
    for place in range(tile + 2):
        for tap in range(3):
            unit, window = np.eye(tile + 2, dtype=int)[place], np.eye(3, dtype=int)[tap]
            result = a @ ((np.array(g) @ window) * (b @ unit))
            assert result.tolist() == [denominator * int(place == i + tap) for i in range(tile)]


@pytest.mark.parametrize("tile", [2, 4])
def test_spare_bits_make_up_for_the_growth_of_rounding_errors(tile):
    rows = np.abs(np.array(_INPUT[tile])).sum(1)
    growth = (np.abs(np.array(_OUTPUT[tile])) @ rows).max() ** 2
    assert growth == {2: 36, 4: 15876}[tile]
    assert 2 ** SPARE_BITS[tile] * 9 >= growth > 2 ** (SPARE_BITS[tile] - 1) * 9


@pytest.mark.parametrize("tile", [2, 4])
def test_rounded_filters_keep_within_the_bound_of_a_direct_convolution(tile):
    ring, draws, f = Ring(64, 16), np.random.default_rng(0), 16
    weights, x = draws.normal(0, 0.2, (8, 16, 3, 3)), draws.normal(0, 2, (1, 16, 12, 12))
    encoded = Ring(64, f + SPARE_BITS[tile]).encode(filters(weights, tile))
    exact_x = ring.decode(ring.encode(x))
    found = ring.decode(Winograd(tile).apply(ring, ring.encode(x), encoded), 2 * f + SPARE_BITS[tile])
    expected = torch.nn.functional.conv2d(torch.from_numpy(exact_x), torch.from_numpy(weights), padding=1).numpy()
    bound = 9 * 16 * np.abs(exact_x).max() * 2.0 ** -(f + 1)
    assert np.abs(found - expected).max() <= bound


def _tiled(tile, build, shape):
    module = seeded(build)
    return module, WinogradTiles(tile).apply(capture(module, shape))


@pytest.mark.parametrize("tile", [2, 4])
def test_a_network_by_tiles_runs_like_any_other_and_opens_no_more(tile):
    def build():
        first = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 3))

    module, network = _tiled(tile, build, (3, 9, 9))
    run = checked(module, (3, 9, 9), network=network)
    maps = [use.map for step in lower(network).plan.steps if hasattr(step, "uses") for use in step.uses]
    assert [type(map_) for map_ in maps[:2]] == [Winograd, Winograd]
    direct = cost_table(lower(capture(module, (3, 9, 9)), 2).plan)
    assert (run.declared.online, run.declared.offline) == (direct.online, direct.offline)
    weights = [table.setup.bytes - 8 * 3 * 4 * 49 for table in (run.declared, direct)]
    assert weights[0] * 9 == weights[1] * (tile + 2) ** 2


def test_a_ring_without_room_for_the_spare_bits_is_refused():
    _, network = _tiled(4, lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8))
    with pytest.raises(ConfigError, match="no room"):
        lower(network, ring=Ring(32, 10), layout=Layout(20))
    lower(network, ring=Ring(48, 12), layout=Layout(24))
