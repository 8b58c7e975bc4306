"""Quantised networks agree with the float ones, on every rule and on real records; what cannot be said is listed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backends.operator_table import CASES
from codegen_networks import NAMES, quantised
from edgeward.codegen.quantize import from_int8, quantize, to_int8, with_argmax
from edgeward.codegen.reference import labels, run
from edgeward.core.errors import ConfigError, DataError, ModelError, UnsupportedOperators
from edgeward.graph import capture, to_module

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def answers(network, records):
    found = to_module(network)(*(torch.from_numpy(x) for x in records.values()))
    return [y.detach().numpy() for y in (found if isinstance(found, tuple) else (found,))]


def integer_answers(graph, records):
    found = run(graph, {name: to_int8(graph.values[name], x) for name, x in records.items()})
    return [from_int8(graph.values[name], found[name]) for name in graph.outputs]


def error(module, shape, records=64, **options):
    """Mean error of the integer network over the spread of the float one's answers."""
    network = capture(module.eval(), shape)
    x = {"input": np.random.default_rng(0).normal(size=(records, *shape)).astype(np.float32)}
    graph = quantize(network, x, **options)
    (right,), (came,) = answers(network, x), integer_answers(graph, x)
    assert came.shape == right.shape
    return float(np.abs(came - right).mean() / right.std()), graph


class Apply(nn.Module):
    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(x, **dict(self.named_children()))


def seeded(builder):
    """Build with reproducible weights, and statistics that differ between channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = builder()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.data.uniform_(-1.5, 1.5)
        return module


IMAGE = (3, 8, 8)
RULES = {
    "conv": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), IMAGE, ["conv2d"]),
    "conv_rectangle": (lambda: nn.Conv2d(3, 5, (1, 3), stride=(1, 2), padding=(0, 2)), IMAGE, ["conv2d"]),
    "conv_groups": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2), (4, 9, 9), ["conv2d"]),
    "depthwise_wider": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 9, 9), ["conv2d"]),
    "same_padding": (
        lambda: Apply(lambda x, c: c(F.pad(x, (0, 1, 0, 1))), c=nn.Conv2d(3, 5, 3, stride=2)),
        IMAGE,
        ["conv2d"],
    ),
    "padding_of_two_readers": (
        lambda: Apply(
            lambda x, c, d: c(p := F.pad(x, (1, 2, 0, 1))) + d(p), c=nn.Conv2d(3, 5, 3), d=nn.Conv2d(3, 5, 3)
        ),
        IMAGE,
        ["depthwise", "conv2d", "conv2d", "add"],
    ),
    "flatten_color": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), IMAGE, ["reshape", "linear"]),
    "flatten_norm_relu": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.ReLU(), nn.Linear(192, 7)),
        IMAGE,
        ["reshape", "reshape", "depthwise", "reshape", "linear"],
    ),
    "norm_first": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1)),
        IMAGE,
        ["depthwise", "conv2d"],
    ),
    "norm_into_conv": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), IMAGE, ["conv2d"]),
    "scale_into_groups": (
        lambda: Apply(
            lambda x, c: c(x * torch.tensor([1.0, 2.0, 3.0, -4.0]).reshape(4, 1, 1) + 0.5),
            c=nn.Conv2d(4, 6, 3, groups=2),
        ),
        (4, 9, 9),
        ["conv2d"],
    ),
    "conv_then_constant": (
        lambda: Apply(lambda x, c: torch.relu(c(x) / 3.0 - 0.1), c=nn.Conv2d(3, 4, 3)),
        IMAGE,
        ["conv2d"],
    ),
    "residual": (
        lambda: Apply(lambda x, c: torch.relu(c(x) + x), c=nn.Conv2d(3, 3, 3, padding=1)),
        IMAGE,
        ["conv2d", "add"],
    ),
    "difference": (lambda: Apply(lambda x, c: c(x) - x, c=nn.Conv2d(3, 3, 1)), IMAGE, ["conv2d", "add"]),
    "option_a": (
        lambda: Apply(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 1))),
        (3, 9, 8),
        ["shortcut"],
    ),
    "max_pool_ceil": (lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), (3, 8, 7), ["max_pool2d"]),
    "max_pool_padded": (lambda: nn.MaxPool2d(3, stride=2, padding=1), (3, 8, 7), ["max_pool2d"]),
    "avg_pool_padded": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (3, 8, 7), ["avg_pool2d"]),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d((4, 2)), IMAGE, ["avg_pool2d"]),
    "global_kept": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE, ["global_avg_pool", "reshape"]),
    "pad_alone": (lambda: Apply(lambda x: F.pad(x, (1, 2, 0, 3))), IMAGE, ["depthwise"]),
    "gate": (
        lambda: Apply(lambda x, c: torch.sigmoid(c(F.adaptive_avg_pool2d(x, 1))) * x, c=nn.Conv2d(3, 3, 1)),
        IMAGE,
        ["global_avg_pool", "reshape", "conv2d", "lookup", "mul"],
    ),
    "square": (lambda: Apply(lambda x: x * x), IMAGE, ["mul"]),
    "functions_become_one_table": (
        lambda: nn.Sequential(nn.Tanh(), nn.ReLU(), nn.Sigmoid(), nn.LeakyReLU(0.1)),
        IMAGE,
        ["lookup"],
    ),
    "concat_on_one_grid": (
        lambda: Apply(
            lambda x, a, b: torch.cat([a(x), torch.relu(b(x))], 1),
            a=nn.Conv2d(3, 4, 1),
            b=nn.Conv2d(3, 2, 3, padding=1),
        ),
        IMAGE,
        ["conv2d", "conv2d", "concat"],
    ),
    "concat_on_two_grids": (
        lambda: Apply(lambda x, a: torch.cat([x, 9 * torch.tanh(y := a(x)) + y, y], 1), a=nn.Conv2d(3, 4, 1)),
        IMAGE,
        ["conv2d", "lookup", "add", "lookup", "lookup", "concat"],
    ),
    "concat_of_flattened_images": (
        lambda: Apply(
            lambda x, a, h: h(torch.cat([x.flatten(1), a(x).flatten(1)], 1)), a=nn.Conv2d(3, 4, 3), h=nn.Linear(336, 5)
        ),
        IMAGE,
        ["conv2d", "reshape", "reshape", "concat", "linear"],
    ),
    "vector": (
        lambda: nn.Sequential(nn.Linear(9, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
        (9,),
        2 * ["linear"],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_the_meaning(rule):
    builder, shape, operators = RULES[rule]
    deviation, graph = error(seeded(builder), shape)
    assert sorted(node.operator for node in graph.nodes) == sorted(operators)
    assert deviation < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_whole_networks_agree_with_float(name):
    case = quantised(name)
    for right, came in zip(answers(case.network, case.records), integer_answers(case.graph, case.records), strict=True):
        assert np.abs(came - right).mean() < 0.03 * right.std()


REFUSED = {
    "linear_on_tokens", "avg_pool_without_pad", "mean_keep", "softmax", "layer_norm", "layer_norm_plain",
    "group_norm", "two_values", "permute", "slice", "select", "pad", "attention", "matmul_softmax", "token_block",
    "binary_linear", "binary_mlp", "binary_conv", "binary_conv_stride_padding", "binary_conv_groups",
}  # fmt: skip
QUICK = ("mean_keep", "slice", "two_values", "binary_linear", "quantized_linear_4_weights_only", "squeeze_excite")


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[] if c.name in QUICK else pytest.mark.slow) for c in CASES]
)
def test_every_operator_of_the_table_is_quantised_or_refused_with_advice(case):
    x = {"input": np.random.default_rng(0).normal(size=(16, *case.input_shape)).astype(np.float32)}
    if case.name in REFUSED:
        with pytest.raises(UnsupportedOperators) as caught:
            quantize(case.network, x)
        assert all(fix for _, _, fix in caught.value.problems)
        return
    (right,), (came,) = answers(case.network, x), integer_answers(quantize(case.network, x), x)
    assert np.abs(came - right).mean() < 0.03 * max(right.std(), 1e-3)


def test_all_problems_are_in_one_error():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(256, 3), nn.Softmax(dim=1))
    network = capture(body, IMAGE)
    with pytest.raises(UnsupportedOperators) as caught:
        quantize(network, {"input": np.zeros((2, *IMAGE), np.float32)})
    assert [(layer, operator) for layer, operator, _ in caught.value.problems] == [
        ("1", "group_norm"),
        ("4", "softmax"),
    ]
    assert "edgeward.graph" not in str(caught.value)


def test_a_result_that_cancels_is_refused_by_name():
    network = capture(Apply(lambda x: x * 1.0000002 - x), IMAGE)
    with pytest.raises(UnsupportedOperators, match="the sum is not far smaller"):
        quantize(network, {"input": np.random.default_rng(0).normal(size=(8, *IMAGE)).astype(np.float32)})


def test_a_flattened_image_as_output_is_refused():
    network = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), IMAGE)
    with pytest.raises(UnsupportedOperators, match="before it is flattened"):
        quantize(network, {"input": np.zeros((2, *IMAGE), np.float32)})


def test_sums_that_could_overflow_are_refused():
    # 140,000 products of 127 and 128 exceed 2^31; 130,000 do not.
    for features, fits in ((130_000, True), (140_000, False)):
        layer = nn.Linear(features, 1)
        layer.weight.data.fill_(0.5)
        network = capture(nn.Sequential(layer), (features,))
        x = {"input": np.resize(np.float32([1, -1]), (1, features))}
        if fits:
            assert quantize(network, x).nodes[0].operator == "linear"
        else:
            with pytest.raises(UnsupportedOperators, match="32 bits may overflow"):
                quantize(network, x)


def test_dead_channels_and_large_biases_keep_their_value():
    layer = nn.Conv2d(1, 4, 1)
    layer.weight.data = torch.tensor([0.0, 1e-12, 1.0, 0.0]).reshape(4, 1, 1, 1)
    layer.bias.data = torch.tensor([3.0, -2.0, 0.5, 0.0])
    network = capture(layer, (1, 4, 4))
    x = {"input": np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)}
    graph = quantize(network, x)
    (right,), (came,) = answers(network, x), integer_answers(graph, x)
    assert np.abs(came - right).max() <= 0.51 * graph.values[graph.outputs[0]].scale + 1 / 127


def test_zero_is_exact_on_every_grid_and_padding_adds_nothing():
    graph = quantised("gated").graph
    assert all(-128 <= value.zero_point <= 127 for value in graph.values.values())
    value = graph.values["input"]
    assert np.all(from_int8(value, to_int8(value, np.zeros((1, 3, 16, 16), np.float32))) == 0)


def test_records_go_to_int8_and_back_within_half_a_step():
    case = quantised("resnet")
    value, x = case.graph.values["input"], case.records["input"]
    back = from_int8(value, to_int8(value, x))
    assert back.shape == x.shape
    assert np.abs(back - x).max() <= value.scale * 0.5001
    far = to_int8(value, np.full_like(x, 1e9))
    assert np.all(far == 127)
    assert np.all(to_int8(value, np.full_like(x, -np.inf)) == -128)
    with pytest.raises(DataError, match="do not fit the value"):
        to_int8(value, x[:, :, :-1])


def test_quantised_layers_keep_their_grids():
    case = next(c for c in CASES if c.name == "quantized_conv_8")
    x = {"input": np.random.default_rng(0).normal(size=(32, *case.input_shape)).astype(np.float32)}
    graph = quantize(case.network, x)
    (node,) = graph.nodes
    held = {role: case.network.tensor(case.network.nodes[0], role).numpy() for role in case.network.nodes[0].tensors}
    value = graph.values["input"]
    assert value.scale == pytest.approx(float(held["activation_scale"]), rel=1e-6)
    assert value.zero_point == int(held["activation_zero_point"]) - 128
    expected = np.clip(np.rint(held["weight"] / held["weight_scale"].reshape(-1, 1, 1, 1)), -127, 127)
    np.testing.assert_array_equal(graph.tensors[node.tensors["weight"]], expected.transpose(0, 2, 3, 1))


def test_the_percentile_trims_outliers():
    x = np.random.default_rng(0).normal(size=(200, *IMAGE)).astype(np.float32)
    x[0, 0, 0, 0] = 1000.0
    network = capture(nn.Conv2d(3, 4, 1), IMAGE)
    whole, trimmed = (quantize(network, {"input": x}, percentile=p).values["input"].scale for p in (100.0, 99.99))
    assert whole > 50 * trimmed
    with pytest.raises(ConfigError, match="percentile"):
        quantize(network, {"input": x}, percentile=10.0)


def test_wrong_calibration_records_are_refused_together():
    case = quantised("monitor")
    first, second = case.records.values()
    bad = first.copy()
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(DataError) as caught:
        quantize(case.network, {"input_0": bad, "input_1": second[:, :-1], "more": first})
    for part in ("'more' is not an input", "'input_0' holds NaN", "'input_1' is float32 [12, 15, 8, 8]"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="at least 1"):
        quantize(case.network, {"input_0": first[:0], "input_1": second[:0]})
    with pytest.raises(DataError, match=r"\[11, 12\] records"):
        quantize(case.network, {"input_0": first[:11], "input_1": second})


def test_weights_and_results_that_are_not_finite_are_refused():
    layer = nn.Conv2d(3, 4, 1)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        quantize(capture(layer, IMAGE), {"input": np.ones((1, *IMAGE), np.float32)})
    layer.weight.data.fill_(1e38)
    with pytest.raises(DataError, match="not finite"):
        quantize(capture(nn.Sequential(layer), IMAGE), {"input": np.full((1, *IMAGE), 100, np.float32)})


def test_argmax_is_the_label():
    case = quantised("resnet")
    scores = run(case.graph, case.inputs)[case.graph.outputs[0]]
    found = with_argmax(case.graph)
    assert labels(run(found, case.inputs)[found.outputs[0]]).tolist() == scores.argmax(1).tolist()
    with pytest.raises(ModelError, match="vector of scores"):
        with_argmax(quantize(capture(nn.Conv2d(3, 4, 1), IMAGE), {"input": np.ones((1, *IMAGE), np.float32)}))


def test_the_same_records_give_the_same_graph():
    case = quantised("lenet")
    again = quantize(case.network, case.records)
    assert again.values == case.graph.values
    assert all(np.array_equal(again.tensors[key], tensor) for key, tensor in case.graph.tensors.items())


@pytest.mark.skipif(not (DATA / "cifar10" / "labels.npz").is_file(), reason="no CIFAR-10 in EDGEWARD_DATA")
@pytest.mark.parametrize("records", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_published_resnet_keeps_its_answers_on_real_images(records):
    from edgeward.nets.standardize import IMAGENET_MEAN, IMAGENET_STD
    from nets.test_nets_published_weights import images, normalised, published_resnet

    network = published_resnet(20, "resnet20-12fca82f.th")
    sheets = [normalised(images([s]), IMAGENET_MEAN, IMAGENET_STD) for s in range(-(-records // 1000) + 1)]
    graph = quantize(network, {"input": sheets[-1][:96]})
    x = {"input": np.concatenate(sheets[:-1])[:records]}
    (right,), (came,) = answers(network, x), integer_answers(graph, x)
    same = (right.argmax(1) == came.argmax(1)).mean()
    # Measured: 99.2 % of 600 answers agree, and as many are right as in float.
    assert same >= 0.975
    assert np.abs(came - right).mean() < 0.04 * right.std()


def test_a_trained_network_loses_next_to_nothing_on_digits():
    from sklearn.datasets import load_digits

    pixels, truth = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2)]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        for epoch in range(6):
            for batch in np.random.default_rng(epoch).permutation(1200).reshape(-1, 60):
                loss = F.cross_entropy(module(torch.from_numpy(x[batch])), torch.from_numpy(truth[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network = capture(module.eval(), (1, 8, 8))
    graph = quantize(network, {"input": x[:200]})
    assert len(graph.nodes) == 6
    (right,), (came,) = answers(network, {"input": x[1200:]}), integer_answers(graph, {"input": x[1200:]})
    exact, rounded = ((scores.argmax(1) == truth[1200:]).mean() for scores in (right, came))
    assert exact > 0.93
    assert abs(rounded - exact) <= 0.01
