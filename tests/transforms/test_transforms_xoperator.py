"""The X-operator in both readings, and Winograd's tiles as a rewrite: shapes, cost, what stays untouched."""

import math

import pytest
import torch
from torch import nn

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.graph import capture, to_module
from edgeward.nets import densenet_imagenet, mobilenet_v2, resnet
from edgeward.train.population import build
from edgeward.transforms import REWRITES, TRANSFORMS, WinogradTiles, XOperator
from edgeward.transforms.xoperator import Crossed, DenseHourglass, Hourglass


def macs(network):
    return {
        node.layer: network.values[node.output].elements * math.prod(network.tensor(node, "weight").shape[1:])
        for node in network.nodes
        if node.operator in ("conv2d", "linear")
    }


def mobile():
    return mobilenet_v2(width=0.35, classes=3)


def test_it_is_registered_and_says_that_its_definition_is_inferred():
    assert TRANSFORMS["xoperator"] is XOperator
    assert REWRITES["winograd"] is WinogradTiles
    assert XOperator.basis == "definition inferred"


@pytest.mark.parametrize("transform", [XOperator("hourglass"), XOperator("crossed")])
def test_a_rewritten_network_keeps_its_shapes_and_costs_less(transform):
    plain, changed = capture(build(mobile, Seed(0)).eval(), (3, 32, 32)), build(transform.wrap(mobile), Seed(0)).eval()
    network = capture(changed, (3, 32, 32))
    assert network.values[network.outputs[0]].shape == plain.values[plain.outputs[0]].shape
    assert sum(macs(network).values()) < 0.6 * sum(macs(plain).values())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(to_module(network)(x), changed(x))


def test_an_hourglass_takes_the_place_of_an_inverted_residual():
    module = XOperator("hourglass", reduction=2).apply(build(mobile, Seed(0)))
    blocks = [block for block in module.modules() if isinstance(block, Hourglass)]
    assert blocks
    for block in blocks:
        first, depthwise, last = [layer for layer in block.body if isinstance(layer, nn.Conv2d)]
        assert depthwise.groups == depthwise.in_channels == first.out_channels == last.in_channels
        assert first.out_channels <= max(8, min(first.in_channels, last.out_channels))
        assert block.residual == (first.in_channels == last.out_channels and depthwise.stride == (1, 1))


def test_a_layer_of_a_dense_block_still_appends_its_growth():
    build_one = lambda: densenet_imagenet(growth=8, channels=1, classes=2)  # noqa: E731
    module = XOperator("hourglass").apply(build(build_one, Seed(0)))
    layer = next(block for block in module.modules() if isinstance(block, DenseHourglass)).eval()
    x = torch.rand(1, 16, 8, 8)
    y = layer(x)
    assert y.shape == (1, 24, 8, 8)
    assert torch.equal(y[:, :16], x)


def test_crossed_paths_let_every_output_see_every_input():
    block = Crossed(16, 16, 4, (1, 1), bias=False).double().eval()
    jacobian = torch.autograd.functional.jacobian(
        lambda v: block(v.reshape(1, 16, 1, 1)).flatten(), torch.rand(16).double()
    )
    assert (jacobian.abs() > 0).all()


def test_what_would_not_get_cheaper_stays():
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1), nn.Flatten())
    before = [type(layer) for layer in small]
    assert [type(layer) for layer in XOperator("hourglass", skip=()).apply(small)] == before
    assert [type(layer) for layer in XOperator("crossed", skip=()).apply(nn.Sequential(nn.Conv2d(6, 9, 1)))] == [
        nn.Conv2d
    ]


@pytest.mark.parametrize(
    "make", [lambda: XOperator(groups=2), lambda: XOperator(reduction=0), lambda: WinogradTiles(3)]
)
def test_settings_that_mean_nothing_are_refused(make):
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_tiles_mark_the_convolutions_they_fit_and_change_no_result():
    module = build(lambda: resnet(8, width=4), Seed(0)).eval()
    network = capture(module, (3, 16, 16))
    tiled = WinogradTiles(2).apply(network)
    marked = {node.layer for node in tiled.nodes if "winograd" in node.attributes}
    kernels = {n.layer: (n.attributes["stride"], n) for n in network.nodes if n.operator == "conv2d"}
    assert marked == {layer for layer, (stride, _) in kernels.items() if tuple(stride) == (1, 1)}
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(to_module(tiled)(x), to_module(network)(x))
