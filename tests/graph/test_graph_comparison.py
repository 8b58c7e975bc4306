"""Capture equals the module: every option of attention and of functional calls, or a refusal that names the node."""

from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backends.operator_table import Apply
from edgeward.core.errors import ModelError
from edgeward.graph import capture, mapping_elementwise, mapping_pooling, program
from edgeward.graph.comparison import values_of


def same(module, shape):
    """Reference: the eager module, in float64."""
    network = capture(module, shape)
    x = 3 * torch.randn(4, *shape, generator=torch.Generator().manual_seed(9)).double()
    with torch.no_grad():
        expected = module.double().eval()(x.clone())
    (output,) = network.outputs
    torch.testing.assert_close(values_of(network, (x,))[output], expected, rtol=1e-9, atol=1e-9)
    return network


class Attend(nn.Module):
    def __init__(self, call, **options):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.call = nn.MultiheadAttention(8, 2, batch_first=True, **options), call

    def forward(self, x):
        return self.call(self.a, x)


@pytest.mark.parametrize(("zero", "bias"), [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("call", "options"),
    [
        (lambda a, x: a(x, x, x, need_weights=False)[0], {}),
        (lambda a, x: a(x, x, x)[1], {}),
        (lambda a, x: a(x, x, x, average_attn_weights=False)[1], {}),
        (lambda a, x: a(x, x, x, None, True, None, False)[1], {}),
        (lambda a, x: a(x, x, x, None, False)[0], {}),
        (lambda a, x: a(x, x[:, 1:, :5], x[:, 1:, 2:6])[0], {"kdim": 5, "vdim": 4}),
        (lambda a, x: a(x[:, :2], x, x * 2)[0], {}),
    ],
)
def test_options_of_attention(call, options, zero, bias):
    same(Attend(call, add_zero_attn=zero, bias=bias, **options), (5, 8))


@pytest.mark.parametrize(
    "call",
    [
        lambda a, x: a(x, x, x, key_padding_mask=torch.zeros(x.shape[0], 5, dtype=torch.bool))[0],
        lambda a, x: a(x, x, x, attn_mask=torch.ones(5, 5).triu(1).bool())[0],
        lambda a, x: a(x, x, x, attn_mask=torch.ones(5, 5).triu(1).bool(), is_causal=True)[0],
        lambda a, x: a(x[:, 0], x[:, 0], x[:, 0])[0],
    ],
)
def test_attention_that_is_not_carried_is_refused(call):
    with pytest.raises(ModelError):
        capture(Attend(call), (5, 8))


def test_a_forward_of_its_own_is_not_replaced():
    class Own(nn.MultiheadAttention):
        def forward(self, query, key, value, **options):
            return F.linear(query, self.out_proj.weight) + value, None

    module = Attend(lambda a, x: a(x, x, x)[0])
    module.a = Own(8, 2, batch_first=True)
    same(module, (5, 8))


def _full(x, value):
    return torch.full((4,), value, dtype=x.dtype)


MAPS = {
    "max pool, ceil": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max pool, dilated": lambda x: F.max_pool2d(x, 2, 1, 0, dilation=2),
    "average pool, ceil, padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "average pool, ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool": lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 1), count_include_pad=False),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "softmax of the last axis": lambda x: F.softmax(x, -1),
    "softmax of an inner axis": lambda x: F.softmax(x, 2),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.7),
    "clamp above": lambda x: x.clamp(max=0.4),
    "clamp at zero": lambda x: x.clamp(0.0, 0.4),
    "reversed difference": lambda x: 1.5 - x,
    "reversed difference, scaled": lambda x: torch.rsub(x, 1.5, alpha=3),
    "layer norm": lambda x: F.layer_norm(x, (6, 6), eps=0.5),
    "group norm": lambda x: F.group_norm(x, 2, eps=0.5),
    "batch norm": lambda x: F.batch_norm(x, _full(x, 0.25), _full(x, 2.0), eps=0.25),
    "mean kept": lambda x: x - x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum((1, -1)),
    "split": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "slices": lambda x: x[:, 1:-1, ::2, -3:],
    "padding": lambda x: F.pad(x, (1, 2, 0, 1), value=-2.0),
    "stacked": lambda x: torch.stack([x, 2 * x], -1)[..., 1],
    "power": lambda x: x**3 - x.square() / 4,
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, scale=0.2),
    "written to": lambda x: x.mul_(2.0) + x.add_(1.0),
}


@pytest.mark.parametrize("name", MAPS)
def test_arguments_of_functional_calls(name):
    same(Apply(MAPS[name]), (4, 6, 6))


REFUSED = {
    "difference, scaled": lambda x: torch.sub(x, x * 2, alpha=2),
    "sum, scaled": lambda x: torch.add(x, 1.0, alpha=2),
    "rounded quotient": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "reflected": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "resized": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "attention, dropped": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "attention, causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "mean of the batch": lambda x: x - x.mean(0, keepdim=True),
    "count of records": lambda x: x / x.shape[0],
    "literal count": lambda x: x.reshape(2, 4, 6, 6),
    "softmax of the batch": lambda x: F.softmax(x, 0),
    "random": lambda x: x + torch.rand_like(x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_carried_is_refused(name):
    with pytest.raises(ModelError) as caught:
        capture(Apply(REFUSED[name]), (4, 6, 6))
    assert caught.value.fix


class Twice(nn.Module):
    """Two normalisations without a scale of their own in one layer, over different counts of channels."""

    def __init__(self):
        super().__init__()
        for name, count in (("a", 4), ("b", 2)):
            self.register_buffer(f"mean_{name}", torch.arange(float(count)))
            self.register_buffer(f"variance_{name}", 1 + torch.arange(float(count)))

    def forward(self, x):
        y = F.batch_norm(x, self.mean_a, self.variance_a)
        return F.batch_norm(y[:, :2], self.mean_b, self.variance_b)


def test_neutral_tensors_of_one_layer_do_not_replace_each_other():
    network = same(Twice(), (4, 3, 3))
    norms = [node for node in network.nodes if node.operator == "batch_norm"]
    assert [network.tensor(node, "weight").shape for node in norms] == [(4,), (2,)]


class Calls(nn.Module):
    """Answers otherwise from the second call on, without a tensor that says so."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * min(self.calls, 5)


def test_a_module_that_does_not_repeat_itself_is_refused():
    with pytest.raises(ModelError, match="does not repeat its answers"):
        capture(Calls(), (4,))


class Tracing(nn.Module):
    """Computes one thing when it runs and another when it is exported."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), Apply(lambda x: x * (2 if torch.compiler.is_exporting() else 3))

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_a_module_that_is_another_while_exported_is_refused():
    with pytest.raises(ModelError, match="does not compute what the module computes"):
        capture(Tracing(), (4,))


@pytest.mark.parametrize("way", ["module", "program"])
@pytest.mark.parametrize(
    ("target", "rule", "name"),
    [
        (torch.ops.aten.leaky_relu.default, mapping_elementwise._plain, "leaky_relu"),
        (torch.ops.aten.mean.dim, mapping_pooling._mean, "mean"),
    ],
)
def test_a_wrong_rule_is_found_and_its_node_is_named(monkeypatch, way, target, rule, name):
    """Fault injection: a rule forgets what it was given."""

    def forgetful(call):
        if name == "mean":
            value = rule(call)
            return call.emit("mul", (value,), {"scalar": 1.001})
        return call.emit("leaky_relu", (call.value("self"),), {"slope": 0.01})

    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.3), Apply(lambda x: x.mean((2, 3)) * 2), nn.Linear(2, 2))
    exported = torch.export.export(
        module.eval(), (torch.randn(2, 1, 5, 5),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    monkeypatch.setattr(program, "RULES", MappingProxyType({**program.RULES, target: forgetful}))
    with pytest.raises(ModelError, match=rf"aten\.{name}\.\w+ in layer '{'1' if name == 'leaky_relu' else '2'}'"):
        capture(module, (1, 5, 5)) if way == "module" else program.capture_program(exported)
