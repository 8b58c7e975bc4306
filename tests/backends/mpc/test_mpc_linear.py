"""Linear layers, products and pools against the simulator, PyTorch's integer operators and Python integers."""

import numpy as np
import pytest
import torch

from backends.mpc.toy_material import play
from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear import Linear, Use, WeightMask, linear, mask_weights, prepare, public_linear
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense
from edgeward.backends.mpc.protocols.multiplication import (
    Product,
    Square,
    multiply,
    square,
)
from edgeward.backends.mpc.protocols.pooling import (
    average_pool,
    average_pool_demand,
    max_pool,
    max_pool_demands,
)
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, add, reconstruct, share, subtract
from edgeward.backends.mpc.simulator import Simulator
from edgeward.core.errors import ConfigError

RING = Ring(64, 16)


def draw(ring, shape, seed):
    """Return elements over the whole ring, boundary values among them."""
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, 8), dtype=np.uint8).view(np.uint64)[..., 0]
    flat = raw.reshape(-1)
    flat[: min(4, flat.size)] = np.array([0, 2**63, 2**63 - 1, 2**64 - 1], np.uint64)[: flat.size]
    return ring.wrap(raw)


def opened(ring, outcome, part=lambda result: result):
    return reconstruct(ring, *(part(result) for result in outcome.results))


def counted(outcome, ring, demands):
    """Both meters count what the demands declare, exactly."""
    declared = sum((demand.cost(ring) for demand in demands), Cost())
    for reading in outcome.meters:
        assert (reading.sent, reading.received, reading.rounds) == (declared.bytes, declared.bytes, declared.rounds)


LAYERS = [
    (Dense(), (2, 7), (3, 7)),
    (Convolution(), (1, 2, 4, 5), (3, 2, 1, 1)),
    (Convolution((2, 1), (1, 2), (1, 2)), (2, 3, 6, 7), (4, 3, 3, 2)),
    (Convolution((1, 1), (1, 1), groups=2), (1, 4, 5, 5), (6, 2, 3, 3)),
    (Convolution((2, 2), (1, 1), groups=4), (1, 4, 5, 5), (4, 1, 3, 3)),
]


@pytest.mark.parametrize("bits", [64, 32, 8, 5])
@pytest.mark.parametrize(("map_", "x_shape", "w_shape"), LAYERS)
@pytest.mark.parametrize("ahead", [True, False])
def test_a_linear_layer_equals_pytorch_in_the_ring(bits, map_, x_shape, w_shape, ahead):
    ring = Ring(bits, 2)
    x, w, bias = draw(ring, x_shape, 1), draw(ring, w_shape, 2), draw(ring, (w_shape[0],), 3)
    held = share(ring, x), share(ring, w), share(ring, bias, 4)
    demands = WeightMask("layer", w_shape), Linear(x_shape, (Use("layer", map_, w_shape),))

    def program(party, supply):
        me = party.number
        weights = [mask_weights(party, held[1][me], supply.draw(demands[0]))]
        material = supply.draw(demands[1])
        material = prepare(ring, weights, material) if ahead else material
        return linear(party, held[0][me], weights, material, [held[2][me]])[0]

    outcome = rehearse(ring, demands, program)
    a, b = (torch.from_numpy(ring.signed(v)) for v in (x, w))
    if isinstance(map_, Dense):
        right = a @ b.T + torch.from_numpy(ring.signed(bias))
    else:
        right = torch.nn.functional.conv2d(
            a, b, torch.from_numpy(ring.signed(bias)), map_.stride, map_.padding, map_.dilation, map_.groups
        )
    assert opened(ring, outcome).shape == map_.output_shape(x_shape, w_shape)
    np.testing.assert_array_equal(opened(ring, outcome), ring.from_integers(right.numpy()))
    np.testing.assert_array_equal(opened(ring, outcome), Simulator(ring).linear(map_, x, w, bias))
    assert outcome.results[0].fraction == 4
    counted(outcome, ring, demands)


def test_layers_that_read_one_input_open_it_once():
    shapes = [(3, 4), (5, 4)]
    masks = [WeightMask(f"w{i}", shape) for i, shape in enumerate(shapes)]
    demand = Linear((2, 4), tuple(Use(f"w{i}", Dense(), shape) for i, shape in enumerate(shapes)))
    x, ws = draw(RING, (2, 4), 0), [draw(RING, shape, i) for i, shape in enumerate(shapes)]
    xs, held = share(RING, x), [share(RING, w) for w in ws]

    def program(party, supply):
        me = party.number
        weights = [mask_weights(party, h[me], supply.draw(m)) for h, m in zip(held, masks, strict=True)]
        return linear(party, xs[me], weights, supply.draw(demand))

    outcome = rehearse(RING, [*masks, demand], program)
    for i, w in enumerate(ws):
        right = Simulator(RING).linear(Dense(), x, w)
        np.testing.assert_array_equal(opened(RING, outcome, lambda r, i=i: r[i]), right)
    counted(outcome, RING, [*masks, demand])
    assert demand.cost(RING) == Cost(8 * 8, 1)


def test_every_product_of_a_small_ring():
    ring = Ring(4, 0)
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 4, indexing="ij")).reshape(4, -1)
    x, y, a, b = (ring.from_integers(row) for row in grid)
    xs, ys = share(ring, x), share(ring, y)
    demand = Product(x.size)
    run = play(ring, demand, {"a": a, "b": b}, lambda p, m: multiply(p, xs[p.number], ys[p.number], m))
    np.testing.assert_array_equal(opened(ring, run), ring.from_integers(grid[0] * grid[1]))
    counted(run, ring, [demand])
    demand = Square(x.size)
    run = play(ring, demand, {"a": a}, lambda p, m: square(p, xs[p.number], m))
    np.testing.assert_array_equal(opened(ring, run), ring.from_integers(grid[0] ** 2))
    counted(run, ring, [demand])


WINDOWS = [Window((2, 2), (2, 2)), Window((3, 3), (2, 2), (1, 1)), Window((1, 3), (1, 1)), Window((1, 1), (1, 1))]


@pytest.mark.parametrize("window", WINDOWS)
def test_pools_equal_the_simulator(window):
    layout, limit = Layout(32, 4, 4), 1 << 30
    values = np.random.default_rng(0).integers(-limit + 1, limit, (2, 3, 5, 7))
    values.reshape(-1)[:3] = -limit + 1, limit - 1, 0
    x = RING.from_integers(values)
    xs, demands = share(RING, x), max_pool_demands(x.shape, window, layout)
    outcome = rehearse(
        RING, demands, lambda p, s: max_pool(p, xs[p.number], window, [s.draw(demand) for demand in demands])
    )
    inner = torch.from_numpy(values).double()
    right = torch.nn.functional.max_pool2d(inner, window.kernel, window.stride, window.padding)
    np.testing.assert_array_equal(RING.signed(opened(RING, outcome)), right.numpy())
    counted(outcome, RING, demands)
    assert len(demands) == int(np.ceil(np.log2(np.prod(window.kernel))))

    mean = average_pool_demand(RING, x.shape, window)
    outcome = rehearse(RING, [mean], lambda p, s: average_pool(p, xs[p.number], window, s.draw(mean)))
    size = int(np.prod(window.kernel))
    factor = round(2**16 / size)
    sums = torch.nn.functional.avg_pool2d(inner, window.kernel, window.stride, window.padding).numpy() * size
    got = RING.signed(opened(RING, outcome)) - np.array(
        [int(s) * factor >> 16 for s in np.rint(sums).reshape(-1)]
    ).reshape(sums.shape)
    assert np.isin(got, (0, 1)).all()
    counted(outcome, RING, [mean])


def test_a_small_network_from_pixels_to_logits():
    """Convolution, ReLU, max pool, dense: near the result in floating point, bytes and rounds as declared."""
    draws = np.random.default_rng(7)
    image, kernel, dense = draws.normal(size=(1, 1, 8, 8)), draws.normal(size=(4, 1, 3, 3)), draws.normal(size=(5, 64))
    window, layer = Window((2, 2), (2, 2)), Convolution(padding=(1, 1))
    xs, ks, ds = (share(RING, RING.encode(v)) for v in (image, kernel, dense))
    pools = max_pool_demands((1, 4, 8, 8), window, Layout())
    masks = WeightMask("conv", kernel.shape), WeightMask("dense", dense.shape)
    first, second = (
        Linear((1, 1, 8, 8), (Use("conv", layer, kernel.shape),)),
        Linear((1, 64), (Use("dense", Dense(), dense.shape),)),
    )
    act = Relu(256, 16)
    demands = [*masks, first, act, *pools, second]

    def program(party, supply):
        me = party.number
        conv = mask_weights(party, ks[me], supply.draw(masks[0]))
        head = mask_weights(party, ds[me], supply.draw(masks[1]))
        z = linear(party, xs[me], [conv], supply.draw(first))[0]
        t = relu(party, z, supply.draw(act))
        pooled = max_pool(party, t, window, [supply.draw(demand) for demand in pools])
        flat = Shared(pooled.elements.reshape(1, -1), pooled.fraction)
        return linear(party, flat, [head], supply.draw(second))[0]

    outcome = rehearse(RING, demands, program)
    counted(outcome, RING, demands)
    got = RING.decode(opened(RING, outcome), 32)
    t = torch.nn.functional.conv2d(torch.from_numpy(image), torch.from_numpy(kernel), padding=1).relu()
    right = torch.nn.functional.max_pool2d(t, 2).reshape(1, -1).numpy() @ dense.T
    assert np.abs(got - right).max() < 64 * 2**-13


def test_local_operations():
    x, y = draw(RING, (3, 4), 0), draw(RING, (3, 4), 1)
    (x0, x1), (y0, y1), simulator = share(RING, x), share(RING, y), Simulator(RING)
    np.testing.assert_array_equal(reconstruct(RING, add(RING, x0, y0), add(RING, x1, y1)), simulator.add(x, y))
    np.testing.assert_array_equal(reconstruct(RING, subtract(RING, x0, y0), subtract(RING, x1, y1)), RING.wrap(x - y))
    w = draw(RING, (2, 4), 2)
    public = [public_linear(RING, Dense(), part, w, 16) for part in (x0, x1)]
    np.testing.assert_array_equal(reconstruct(RING, *public), simulator.linear(Dense(), x, w))


def test_wrong_shapes_are_refused_before_anything_is_sent():
    demands = WeightMask("w", (3, 4)), Linear((2, 4), (Use("w", Dense(), (3, 4)),))
    shares = share(RING, draw(RING, (4, 3), 0))
    with pytest.raises(ConfigError, match="another shape"):
        rehearse(RING, demands, lambda p, s: mask_weights(p, shares[p.number], s.draw(demands[0])))
    with pytest.raises(ConfigError, match="deal their WeightMask first"):
        rehearse(RING, demands[1:], lambda p, s: None)
    with pytest.raises(ConfigError, match="dealt before"):
        rehearse(RING, [demands[0], demands[0]], lambda p, s: None)
