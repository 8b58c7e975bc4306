import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from backends.operator_table import CASES, Apply, BinaryConv2d, BinaryLinear, Residual
from edgeward.core.errors import ModelError
from edgeward.graph import capture, fold_batch_norm, fold_binary_scales, remove_identities
from graph.interpretation import run

QUICK = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def statistics(module):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 2.0)
            nn.init.uniform_(layer.weight, -1.5, 1.5)
            nn.init.normal_(layer.bias)
    return module.eval()


def operators(network):
    return [node.operator for node in network.nodes]


def equal(before, after, shape):
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(9))
    for left, right in zip(run(before, x), run(after, x), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@st.composite
def convolutional(draw):
    """A random chain of convolutions, normalisations, activations and residuals, and its input shape."""
    torch.manual_seed(draw(st.integers(0, 999)))
    channels = draw(st.sampled_from([2, 4]))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        grouped = draw(st.booleans())
        outputs = draw(st.sampled_from([2, 4, 6]))
        conv = nn.Conv2d(channels, outputs, 3, padding=1, groups=2 if grouped else 1, bias=draw(st.booleans()))
        layers += [conv, *([nn.BatchNorm2d(outputs)] if draw(st.booleans()) else [])]
        if draw(st.booleans()):
            inner = nn.Conv2d(outputs, outputs, 1, bias=False)
            layers.append(Residual(nn.Sequential(inner, nn.BatchNorm2d(outputs))))
        layers.append(draw(st.sampled_from([nn.ReLU(), nn.Hardswish(), nn.MaxPool2d(2), nn.Identity()])))
        channels = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3), nn.BatchNorm1d(3)]
    return statistics(nn.Sequential(*layers, *head)), (layers[0].in_channels, 8, 8)


@given(convolutional())
@QUICK
def test_folded_batch_norm_gives_equal_outputs(case):
    module, shape = case
    before = capture(module, shape)
    after = fold_batch_norm(before)
    equal(before, after, shape)
    assert "batch_norm" not in operators(after)
    assert len(after.values) == len(after.nodes) + 1
    equal(after, fold_batch_norm(after), shape)


def test_batch_norm_stays_where_folding_would_be_wrong():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    class Exit(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            y = self.layer(x)
            return y, self.norm(y)

    tokens = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4))
    binary = nn.Sequential(BinaryLinear(6, 4, bias=False), nn.BatchNorm1d(4))
    first = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    for module, shape in [(Shared(), (1, 5, 5)), (Exit(), (4,)), (tokens, (4, 3)), (binary, (6,)), (first, (4,))]:
        before = capture(statistics(module), shape)
        after = fold_batch_norm(before)
        assert operators(after) == operators(before)
        equal(before, after, shape)


def test_tied_weights_are_folded_apart():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.one, self.two = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.two(self.conv(torch.relu(self.one(self.conv(x)))))

    before = capture(statistics(Tied()), (2, 5, 5))
    after = fold_batch_norm(before)
    assert operators(after) == ["conv2d", "relu", "conv2d"]
    equal(before, after, (2, 5, 5))


def test_folded_networks_refuse_a_swap():
    module = statistics(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    with pytest.raises(ModelError, match="computed"):
        fold_batch_norm(capture(module, (3,))).with_tensors(module.state_dict())


def tail(kind, channels, side):
    """Layers behind a binary convolution that may take up its scale, and how many scales should go."""
    return {
        "norm": [nn.BatchNorm2d(channels)],
        "pool, norm": [nn.MaxPool2d(2), nn.BatchNorm2d(channels)],
        "relu, flatten, linear": [nn.ReLU(), nn.Flatten(), nn.Linear(channels * side * side, 3)],
        "average, flatten, linear": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)],
        "leaky, grouped conv": [nn.LeakyReLU(0.1), nn.Conv2d(channels, 2 * channels, 3, groups=2)],
        "mean, linear": [Apply(lambda x: x.mean((2, 3))), nn.Linear(channels, 3)],
        "pool, binary": [nn.MaxPool2d(2), BinaryConv2d(channels, 4, 1, 0)],
        "flatten, binary": [nn.Flatten(), BinaryLinear(channels * side * side, 3, bias=True)],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "norm",
        "pool, norm",
        "relu, flatten, linear",
        "average, flatten, linear",
        "leaky, grouped conv",
        "mean, linear",
        "pool, binary",
        "flatten, binary",
    ],
)
def test_scales_move_into_the_next_layer(kind):
    torch.manual_seed(len(kind))
    module = statistics(nn.Sequential(BinaryConv2d(3, 4, stride=1, padding=1), *tail(kind, 4, 8)))
    before = capture(module, (3, 8, 8))
    after = fold_binary_scales(before)
    node = after.nodes[0]
    assert node.attributes["unit_scale"] is True
    assert torch.equal(after.tensor(node, "scale"), torch.ones(4))
    equal(before, after, (3, 8, 8))


def test_binary_mlp_moves_all_scales_but_the_last():
    torch.manual_seed(0)
    layers = [BinaryLinear(20, 16, bias=True), nn.ReLU(), nn.BatchNorm1d(16), BinaryLinear(16, 8, bias=True)]
    module = statistics(nn.Sequential(*layers, nn.BatchNorm1d(8), BinaryLinear(8, 3, bias=True)))
    before = capture(module, (20,))
    after = fold_binary_scales(before)
    units = [n.attributes.get("unit_scale", False) for n in after.nodes if n.operator == "binary_linear"]
    assert units == [True, True, False]
    equal(before, after, (20,))


def test_scales_stay_before_an_average_that_is_then_binarized():
    """Averages of whole numbers are often exactly zero, and a scale times zero is not zero after rounding."""
    torch.manual_seed(1)
    module = nn.Sequential(BinaryConv2d(3, 4, 1, 1), nn.AvgPool2d(2), BinaryConv2d(4, 4, 1, 0)).eval()
    before = capture(module, (3, 8, 8))
    after = fold_binary_scales(before)
    assert "unit_scale" not in after.nodes[0].attributes
    equal(before, after, (3, 8, 8))


def test_scales_stay_where_moving_is_not_exact():
    negative = BinaryLinear(6, 4, bias=False)
    with torch.no_grad():
        negative.scale[1] = -1.0

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.binary, self.norm = BinaryLinear(6, 4, bias=False), nn.BatchNorm1d(4)

        def forward(self, x):
            y = self.binary(x)
            return self.norm(y) + y

    modules = [
        nn.Sequential(BinaryLinear(6, 4, bias=True)),
        nn.Sequential(BinaryLinear(6, 4, bias=False), nn.ReLU6(), nn.Linear(4, 2)),
        nn.Sequential(BinaryLinear(6, 4, bias=False), nn.Sigmoid(), nn.BatchNorm1d(4)),
        nn.Sequential(negative, nn.BatchNorm1d(4)),
        nn.Sequential(BinaryLinear(6, 4, bias=True), BinaryLinear(4, 2, bias=False)),
        Two(),
    ]
    for module in modules:
        before = capture(statistics(module), (6,))
        after = fold_binary_scales(before)
        assert not any(node.attributes.get("unit_scale") for node in after.nodes)
        equal(before, after, (6,))
    tokens = capture(statistics(nn.Sequential(BinaryLinear(6, 4, bias=False), nn.BatchNorm1d(4))), (4, 6))
    equal(tokens, fold_binary_scales(tokens), (4, 6))


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_all_rewrites_together_change_nothing(case):
    before = case.network
    after = remove_identities(fold_binary_scales(fold_batch_norm(before)))
    equal(before, after, case.input_shape)


def test_identities_go_and_outputs_stay():
    class Same(nn.Module):
        def forward(self, x):
            y = torch.relu(x)
            return x, x, y, y, x.view(-1, 1, 4).squeeze(1)

    before = capture(Same(), (4,))
    after = remove_identities(before)
    assert len(set(after.outputs)) == 5
    assert "relu" in operators(after)
    equal(before, after, (4,))
