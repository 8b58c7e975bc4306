import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backends.operator_table import CASES, Apply, Residual
from edgeward.core.errors import ModelError, UnsupportedOperators
from edgeward.graph import OPERATORS, Network, Node, Value, capture
from graph.interpretation import run


def same(module, shape, count=3):
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
    with torch.no_grad():
        network = capture(module, shape)
        torch.testing.assert_close(run(network, x)[-1], module.eval()(x), atol=1e-5, rtol=1e-5)
    return network


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_declared_shapes_are_those_of_the_run(case):
    x = torch.randn(3, *case.input_shape)
    torch.testing.assert_close(run(case.network, x)[-1], case.module(x), atol=1e-5, rtol=1e-5)


def test_module_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.3)).train()
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    capture(module, (1, 6, 6))
    assert [layer.training for layer in module.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    assert "forward" not in vars(module[0])


def test_network_owns_its_tensors():
    module = nn.Linear(2, 2)
    network = capture(module, (2,))
    kept = network.tensors["weight"].clone()
    with torch.no_grad():
        module.weight.zero_()
    assert torch.equal(network.tensors["weight"], kept)


def test_dropout_and_in_place_operators_disappear():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = F.relu_(self.layer(x))
            y += x
            y.mul_(2.0)
            return F.dropout(y, training=self.training)

    network = same(InPlace(), (4,))
    assert [n.operator for n in network.nodes] == ["linear", "relu", "add", "mul"]
    assert network.nodes[0].layer == "layer"


def test_all_unsupported_operators_in_one_error():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Apply(lambda x: torch.sin(x)), Apply(lambda x: torch.cumsum(x, 1))
            self.third = nn.Linear(4, 4)

        def forward(self, x):
            return self.third(self.second(torch.relu(self.first(x))))

    with pytest.raises(UnsupportedOperators) as caught:
        capture(Odd(), (4,))
    assert [(layer, operator) for layer, operator, _ in caught.value.problems] == [
        ("first", "aten.sin.default"),
        ("second", "aten.cumsum.default"),
    ]
    assert all(fix for _, _, fix in caught.value.problems)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x if x.sum() > 0 else -x, "data-dependent"),
        (lambda x: x * x.max().item(), "aten.item.default(.|\n)*Python number"),
        (lambda x: x.view(2, 4) + 1, "batch size"),
        (lambda x: x @ torch.zeros(5, 5), "does not run"),
        (lambda x: {"logits": x}, "one answer per record"),
        (lambda x: x.mean(), "one answer per record"),
        (lambda x: x.view(4, -1).transpose(0, 1).contiguous()[:, :2].transpose(0, 1), "mix or move|one answer|trace"),
        (lambda x: x - x.mean(0), "batch as the first axis"),
        (lambda x: F.batch_norm(x, None, None, training=True), "track_running_stats"),
        (lambda x: x + torch.randn(4), "random"),
        (lambda x: x + torch.full((x.shape[0], 4), x.shape[0] / 2), "batch size|Python number"),
        (lambda x: x / x.shape[0], "Python number"),
        (lambda x: F.dropout(x, 0.5, training=True), "dropout"),
        (lambda x: F.max_pool2d(x.view(-1, 2, 2), 2), "C, H, W"),
        (lambda x: x.expand(2, 4).t().matmul(x), "."),
    ],
)
def test_bad_modules_get_a_model_error(function, words):
    with pytest.raises(ModelError, match=words):
        capture(Apply(function), (4,))


def test_bad_arguments_get_a_model_error():
    for module, shape in [(nn.ReLU(), (0,)), (nn.ReLU(), (2.5,)), (torch.relu, (3,))]:
        with pytest.raises((ModelError, TypeError), match=r"capture|Type-check"):
            capture(module, shape)
    locked = nn.ReLU()
    locked.lock = threading.Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        capture(locked, (3,))


def test_hints_name_the_way_out():
    with pytest.raises(UnsupportedOperators, match="leave log_softmax to the loss"):
        capture(Apply(lambda x: torch.log_softmax(x, 1)), (3,))
    with pytest.raises(UnsupportedOperators, match="float32"):
        capture(Apply(lambda x: x.double() * 2), (3,))


def test_capture_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    capture(nn.Dropout(0.5), (3,))
    assert torch.equal(before, torch.random.get_rng_state())


def test_state_that_changes_at_inference_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x * 2

    module = Counting()
    with pytest.raises(ModelError, match="calls"):
        capture(module, (3,))
    assert module.calls == 0


def test_several_outputs():
    class Exits(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            y = torch.relu(self.body(x))
            return self.one(y), self.two(y), y, y

    network = capture(Exits(), (4,))
    x = torch.randn(2, 4)
    assert [network.values[v].shape for v in network.outputs] == [(2,), (3,), (4,), (4,)]
    assert len(set(network.outputs)) == 4
    assert [tuple(v.shape) for v in run(network, x)] == [(2, 2), (2, 3), (2, 4), (2, 4)]


def test_with_tensors_equals_a_fresh_capture():
    torch.manual_seed(0)
    factory = lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), Apply(lambda x: x * torch.tensor([2.0])))  # noqa: E731
    one, two = factory().eval(), factory().eval()
    two[1].running_mean.normal_()
    swapped = capture(one, (1, 5, 5)).with_tensors(two.state_dict())
    x = torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(run(swapped, x)[0], two(x))
    assert any(key.startswith("constant:") for key in swapped.tensors)


def test_with_tensors_refuses_other_shapes_and_computed_tensors():
    network = capture(nn.Linear(3, 2), (3,))
    with pytest.raises(ModelError, match="does not fit"):
        network.with_tensors(nn.Linear(4, 2).state_dict())

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))
            self.register_buffer("mask", torch.tensor([[1.0, 0, 1], [0, 1, 1]]))

        def forward(self, x):
            return F.linear(x, self.weight * self.mask)

    module = Masked()
    masked = same(module, (3,))
    assert [n.operator for n in masked.nodes] == ["linear"]
    with pytest.raises(ModelError, match="computed from another state"):
        masked.with_tensors(module.state_dict())


def test_non_persistent_buffers_survive_a_swap():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.register_buffer("gain", torch.tensor([1.0, 2.0, 3.0]), persistent=False)

        def forward(self, x):
            return self.layer(x) * self.gain

    module = Scaled()
    network = same(module, (3,)).with_tensors(Scaled().state_dict())
    assert torch.equal(network.tensors["constant:gain"], module.gain)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), (6,)),
        (lambda x: torch.cat(x.split([1, 3, 2], 1)[1:], 1), (6,)),
        (lambda x: torch.stack([x, -x], 1).sum(2), (6,)),
        (lambda x: x.unbind(1)[2], (4, 3)),
        (lambda x: x.reshape(x.shape[0], 2, 3).permute(1, 0, 2).unbind(0)[1], (6,)),
        (lambda x: x.permute(2, 0, 1)[1], (4, 3)),
        (lambda x: x.unsqueeze(1).squeeze(1).clamp(min=0), (6,)),
        (lambda x: x.clamp(-0.5, 0.25) + x.clamp(max=0.1), (6,)),
        (lambda x: x**2 - x**3 + x.square(), (6,)),
        (lambda x: x.view(-1, 2, 3).flatten(1)[:, -4:-1], (6,)),
        (lambda x: torch.arange(6.0) - x, (6,)),
        (lambda x: x * torch.arange(6), (6,)),
        (lambda x: torch.ones(3, 1) - x, (1, 4)),
        (lambda x: torch.addmm(torch.ones(2), x, torch.ones(6, 2)), (6,)),
        (lambda x: x @ torch.linspace(-1, 1, 12).view(6, 2), (6,)),
        (lambda x: torch.cat([x, torch.zeros(x.shape[0], 2)], 1), (6,)),
        (lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3), padding="same"), (3, 5, 5)),
        (lambda x: x.mean((-1, -2)), (3, 5, 5)),
        (lambda x: F.relu6(x).to(torch.float32), (6,)),
        (lambda x: x, (6,)),
    ],
)
def test_forms_of_writing(function, shape):
    same(Apply(function), shape)


def test_mask_of_ones_still_forbids_a_swap():
    """What a stored tensor is now says nothing of what a sibling's is."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))
            self.register_buffer("mask", torch.ones(2, 3))

        def forward(self, x):
            return F.linear(x, self.weight * self.mask)

    module = Masked()
    with pytest.raises(ModelError, match="computed"):
        capture(module, (3,)).with_tensors(module.state_dict())


def test_state_keys_may_look_like_prefixes():

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.constant, self.folded = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.folded(self.constant(x))

    zeros = {key: torch.zeros_like(tensor) for key, tensor in Chain().state_dict().items()}
    swapped = capture(Chain(), (2,)).with_tensors(zeros)
    assert not any(t.any() for t in swapped.tensors.values())


def test_cross_attention():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x[:, :2], x[:, 2:], x[:, 2:])[0]

    same(Cross(), (5, 8))


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_keeps_its_parameters(need_weights):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=need_weights)[0]

    network = same(Block(), (5, 8))
    assert "attention.in_proj_weight" in network.tensors
    assert "attention" in [n.operator for n in network.nodes]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", norm_first=True)
    same(nn.TransformerEncoder(layer, 2), (5, 8))
    same(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8))


def test_batch_norm_without_affine_and_shared_layers():
    network = same(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False)), (1, 5, 5))
    assert OPERATORS["batch_norm"].violations([], network.nodes[1].tensors) == ["lacks attribute 'epsilon'"]
    shared = nn.Linear(3, 3)
    again = same(nn.Sequential(shared, nn.ReLU(), shared), (3,))
    assert len([k for k in again.tensors if k.endswith("weight")]) == 1
    assert len({n.name for n in again.nodes}) == 3


def test_residual_structure_and_lookups():
    network = capture(Residual(nn.Conv2d(1, 1, 3, padding=1)), (1, 4, 4))
    assert {n.operator for n in network.consumers("input")} == {"conv2d", "add"}
    assert network.producer("input") is None
    assert network.node("body.conv2d").layer == "body"
    assert network.input_shape() == (1, 4, 4)
    assert network.values["input"].elements == 16


def test_ill_formed_networks_are_refused():
    value = {"x": Value("x", (2,)), "y": Value("y", (2,))}
    with pytest.raises(ModelError, match="before it is written"):
        Network(("x",), ("y",), (Node("y", "", "relu", ("z",), "y"),), value, {})
    with pytest.raises(ModelError, match="unknown operator"):
        Network(("x",), ("y",), (Node("y", "", "sine", ("x",), "y"),), value, {})
    with pytest.raises(ModelError, match="lacks attribute 'slope'"):
        Network(("x",), ("y",), (Node("y", "", "leaky_relu", ("x",), "y"),), value, {})
    with pytest.raises(ModelError, match="never written"):
        Network(("x",), ("y",), (), value, {})
    nodes = (Node("y", "", "relu", ("x",), "y"), Node("z", "", "relu", ("x",), "y"))
    with pytest.raises(ModelError, match="second time"):
        Network(("x",), ("y",), nodes, value, {})


def test_finite_names_the_bad_tensor():
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.bias[0] = float("nan")
    with pytest.raises(ModelError, match="bias"):
        capture(module, (2,)).finite()


def test_double_precision_modules_are_captured_in_float32():
    network = capture(nn.Linear(3, 2).double(), (3,))
    assert {t.dtype for t in network.tensors.values()} == {torch.float32}
    assert np.isfinite(run(network, torch.randn(2, 3))[0].numpy()).all()
