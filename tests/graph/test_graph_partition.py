from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture, fold_batch_norm, to_module
from edgeward.graph.partition import blocks, cuts, divide, stages, subnetwork
from edgeward.nets import NETS
from edgeward.train.population import build

SMALL = {
    "alexnet_small": ({"width": 8}, (3, 32, 32)),
    "densenet": ({"depth": 10, "growth": 4}, (3, 16, 16)),
    "ds_cnn": ({"width": 8}, (1, 49, 10)),
    "early_exit_cnn": ({"widths": (4, 8)}, (1, 12, 12)),
    "lenet": ({}, (1, 28, 28)),
    "mlp": ({"features": 20}, (20,)),
    "mobilenet_v1": ({"width": 0.25, "classes": 2}, (3, 64, 64)),
    "mobilenet_v2": ({"width": 0.35, "classes": 10}, (3, 64, 64)),
    "nin": ({}, (3, 16, 16)),
    "resnet": ({"depth": 8, "width": 4}, (3, 32, 32)),
    "resnet_tiny": ({"width": 4}, (3, 32, 32)),
    "small_cnn": ({"width": 4}, (1, 28, 28)),
    "vgg": ({"width": 0.1}, (3, 32, 32)),
    "vit": ({"depth": 2, "dimension": 16, "size": 16}, (3, 16, 16)),
}
"""Every network of the zoo, small."""


@lru_cache
def network_of(name):
    options, shape = SMALL[name]
    return fold_batch_norm(capture(build(lambda: NETS[name](**options), Seed(1)).eval(), shape))


def composed(parts, x):
    """Run parts in a row; return the outputs of the whole, those given on the way first."""
    given = []
    for number, part in enumerate(parts):
        found = ReferenceExecutable(part).run_all(x)
        last = number + 1 == len(parts)
        given += list(found if last else found[1:])
        x = found[0]
    return given


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_stages_compose_to_the_whole(name):
    network = network_of(name)
    at = stages(network)
    assert at[0].value == network.inputs[0]
    assert at[0].after == 0
    assert len(at) >= 3
    x = torch.randn(2, *network.input_shape(), generator=torch.Generator().manual_seed(2)).numpy()
    found = composed(divide(network, at), x)
    for ours, whole in zip(found, ReferenceExecutable(network).run_all(x), strict=True):
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_cut_is_crossed_by_one_value(name):
    """Reference: walk every node after the cut and look for a value from before it."""
    network = network_of(name)
    constants = {node.output for node in network.nodes if node.operator == "constant"}
    for cut in cuts(network):
        before = {*network.inputs, *(n.output for n in network.nodes[: cut.after])} - constants
        crossing = {v for node in network.nodes[cut.after :] for v in node.inputs if v in before}
        assert crossing == {cut.value}


def shapes(name):
    return [cut.shape for cut in stages(network_of(name))]


def test_stages_are_those_of_the_papers():
    assert shapes("resnet") == [(3, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert [s[1] for s in shapes("vgg")[1:]] == [16, 8, 4, 2, 2]
    assert [s[1:] for s in shapes("mobilenet_v1")] == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    # inverted residuals are cut at their narrow end
    assert [s[0] for s in shapes("mobilenet_v2")][1:] == [8, 8, 16, 32, 1280]
    assert shapes("ds_cnn")[1:] == [(8, 25, 5)] * 5
    assert shapes("mlp") == [(20,), (128,), (128,), (64,)]
    # one cut for each encoder block; the patches belong to the first
    assert shapes("vit")[1:] == [(17, 16), (17, 16)]


def test_parts_keep_their_tensors_and_train():
    network = network_of("resnet")
    parts = divide(network, stages(network))
    keys = [set(part.tensors) for part in parts]
    assert set().union(*keys) == set(network.tensors)
    assert sum(len(k) for k in keys) == len(network.tensors)
    module = to_module(parts[1]).train()
    module(torch.randn(2, 4, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_part_that_needs_more_is_refused_with_its_reason():
    network = network_of("resnet")
    inside = next(node.output for node in network.nodes if node.operator == "add")
    with pytest.raises(ModelError, match="depend on input"):
        subnetwork(network, (network.nodes[4].output,), (inside,))
    with pytest.raises(ModelError, match="unknown values"):
        subnetwork(network, ("nowhere",), network.outputs)


def test_an_input_may_be_an_output_and_values_may_come_twice():
    network = network_of("mlp")
    value = stages(network)[1].value
    part = subnetwork(network, (value,), (value, network.outputs[0], network.outputs[0]))
    x = np.ones((3, 128), np.float32)
    first, second, third = ReferenceExecutable(part).run_all(x)
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, third)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 1), nn.Linear(4, 3)

    def forward(self, *taps):
        image, vector = taps
        return self.left(image).mean((2, 3)) + self.right(vector)


class TwoNamed(Two):
    def forward(self, image, vector):
        return super().forward(image, vector)


@pytest.mark.parametrize("kind", [Two, TwoNamed])
def test_modules_of_several_inputs_are_captured_and_rebuilt(kind):
    torch.manual_seed(0)
    module = kind().eval()
    network = capture(module, ((2, 5, 5), (4,)))
    assert network.inputs == ("input_0", "input_1")
    assert [network.values[v].shape for v in network.inputs] == [(2, 5, 5), (4,)]
    x, y = torch.randn(3, 2, 5, 5), torch.randn(3, 4)
    torch.testing.assert_close(to_module(network)(x, y), module(x, y))
    with pytest.raises(ModelError, match="one input"):
        stages(network)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_blocks_are_a_finer_grain_than_stages(name):
    network = network_of(name)
    fine, coarse = blocks(network), stages(network)
    assert len(fine) >= len(coarse)
    assert not any((node := network.producer(cut.value)) and node.operator == "relu" for cut in fine)
    assert [cut.index for cut in fine] == list(range(len(fine)))
    x = torch.randn(2, *network.input_shape(), generator=torch.Generator().manual_seed(2)).numpy()
    for ours, theirs in zip(composed(divide(network, fine), x), composed([network], x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_residual_network_has_a_stem_and_one_block_each():
    shapes = [cut.shape for cut in blocks(network_of("resnet"))]
    assert shapes == [(3, 32, 32), (4, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8)]
