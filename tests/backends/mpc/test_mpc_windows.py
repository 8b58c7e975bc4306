"""Pools of every form and grouped convolutions: windows against PyTorch, lowered plans against the reference."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.mpc.whole_runs import checked, drawn, seeded
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.pools import pool_first
from edgeward.backends.mpc.inference.reference import compute
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.pooling import adaptive_sum, max_pool, max_pool_demands, scaled_sum
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, reconstruct, share
from edgeward.graph import capture, to_module

RING = Ring(64, 16)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_largest_of_any_windows_equals_pytorch(data):
    side = st.integers(1, 3)
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride, dilation = data.draw(st.tuples(side, side)), data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil, size = data.draw(st.booleans()), data.draw(st.tuples(st.integers(7, 9), st.integers(7, 9)))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-(2**20), 2**20, (1, 2, *size))
    right = F.max_pool2d(torch.from_numpy(x).double(), kernel, stride, padding, dilation, ceil).numpy()
    window = Window(kernel, stride, padding, dilation).grown(x.shape, right.shape[2:])
    assert window.output_shape(x.shape) == right.shape
    demands, shares = max_pool_demands(x.shape, window, Layout(24)), share(RING, RING.from_integers(x))
    outcome = rehearse(
        RING, demands, lambda p, s: max_pool(p, shares[p.number], window, [s.draw(demand) for demand in demands])
    )
    np.testing.assert_array_equal(RING.signed(reconstruct(RING, *outcome.results)), right.astype(np.int64))
    declared = sum(demand.cost(RING).bytes for demand in demands), sum(demand.cost(RING).rounds for demand in demands)
    assert {(m.sent, m.rounds) for m in outcome.meters} == {declared}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_means_of_any_windows_equal_pytorch(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil, counts = data.draw(st.booleans()), data.draw(st.booleans())
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, 2, 7, 8))
    right = F.avg_pool2d(torch.from_numpy(x), kernel, stride, padding, ceil, counts).numpy()
    window = Window(kernel, stride, padding, counts_padding=counts).grown(x.shape, right.shape[2:])
    got = scaled_sum(RING, Shared(RING.encode(x), 16), window, 4)
    assert got.fraction == 36
    np.testing.assert_allclose(RING.decode(got.elements, 36), right, atol=1e-4)


@pytest.mark.parametrize("output", [(1, 1), (2, 3), (3, 5), (7, 9), (9, 10)])
def test_means_of_near_equal_windows_equal_pytorch(output):
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 9))
    right = F.adaptive_avg_pool2d(torch.from_numpy(x), output).numpy()
    got = adaptive_sum(RING, Shared(RING.encode(x), 16), output, 6)
    np.testing.assert_allclose(RING.decode(got.elements, got.fraction), right, atol=1e-4)


class Excited(nn.Module):
    """Channels times a gain computed from their means, from either side, and a row times a value."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        gain = torch.relu(self.mix(F.adaptive_avg_pool2d(x, 1)))
        return self.head(gain * (x * gain)) * x.mean((1, 2), keepdim=True)


PIECES = {
    "max-ceil": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    "max-overlapping": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 1)),
    "max-stride-1": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1)),
    "max-dilated": lambda: nn.Sequential(nn.MaxPool2d(2, 1, dilation=(3, 2)), nn.Conv2d(3, 4, 1)),
    "max-global": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(9), nn.Flatten(), nn.Linear(4, 2)),
    "max-of-capped": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh(-0.25, 0.25), nn.MaxPool2d(2)),
    "mean-ceil": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.ReLU()),
    "mean-uncounted": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(3, 4, 1)),
    "mean-uneven": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d((4, 2))),
    "mean-global": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    "grouped-dilated": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, dilation=2, padding=1), nn.ReLU()),
    "excited": Excited,
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_equals_the_reference_in_bits_and_the_float_network_closely(name):
    checked(seeded(PIECES[name]), (3, 9, 9), 1, tolerance=5e-4)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
def test_the_pool_goes_before_the_rectifier_and_sends_less(kind):
    module = seeded(lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), kind(), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)))
    network, x = capture(module, (1, 8, 8)), torch.from_numpy(drawn((1, 8, 8), 2))
    swapped = pool_first(network)
    assert [node.operator for node in swapped.nodes][1:3] == ["max_pool2d", "relu" if kind is nn.ReLU else "clip"]
    assert torch.equal(to_module(swapped)(x), to_module(network)(x))
    rows = {row.operator: row.online.bytes for row in cost_table(lower(network).plan).rows}
    assert "truncate" not in rows
    # Rectifying 512 values first costs 10 bytes each before anything is pooled.
    assert sum(rows[operator] for operator in swapped_names(swapped)) < 512 * 10 + rows["max_pool2d"]


def swapped_names(network):
    return {node.operator for node in network.nodes if node.operator not in ("conv2d", "linear")}


def test_pools_that_do_not_shrink_or_have_company_stay_behind():
    still = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
    network = capture(still, (1, 8, 8))
    assert pool_first(network) is network

    class Both(nn.Module):
        def forward(self, x):
            y = torch.relu(x - 0.5)
            return F.max_pool2d(y, 2) + y[:, :, ::2, ::2]

    network = capture(Both(), (1, 8, 8))
    assert pool_first(network) is network


def test_the_mean_of_a_large_map_is_as_exact_as_of_a_small_one():
    """A factor of 16 fraction bits would be 1.5 % off for 56 x 56 places."""
    x = np.full((1, 1, 56, 56), 3.0, np.float32)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1, bias=False))
    nn.init.ones_(module[2].weight)
    lowered = lower(capture(module, (1, 56, 56)))
    assert abs(compute(lowered.plan, lowered.model, x).item() - 3.0) < 1e-3
