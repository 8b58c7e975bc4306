"""Networks with curved activations, layer norms and attention on secret input."""

import numpy as np
import pytest
import torch
from torch import nn

from backends.mpc.toy_material import play
from backends.mpc.whole_runs import Module, checked, seeded
from edgeward.backends.mpc.inference.affines import sink_affines
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import OutOfRange, check_range
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.core.errors import ConfigError, UnsupportedOperators
from edgeward.graph import capture, to_module
from edgeward.nets import vit


def _between(activation):
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 4, 1))


def _squeezed(n, x):
    return n["wide"](x) * n["gate"](n["narrow"](x.mean((2, 3), keepdim=True)))


PIECES = {
    "hard-swish": _between(nn.Hardswish()),
    "hard-sigmoid": _between(nn.Hardsigmoid()),
    "gelu": _between(nn.GELU()),
    "gelu-tanh": _between(nn.GELU(approximate="tanh")),
    "silu": _between(nn.SiLU()),
    "sigmoid-last": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()),
    "tanh-first": lambda: nn.Sequential(nn.Tanh(), nn.Conv2d(3, 4, 1)),
    "softmax-first": lambda: nn.Sequential(nn.Softmax(-1), nn.Flatten(), nn.Linear(192, 3)),
    "softmax-last": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Softmax(1)),
    "squeeze-excite": lambda: Module(
        _squeezed, wide=nn.Conv2d(3, 4, 1), narrow=nn.Conv2d(3, 4, 1), gate=nn.Hardsigmoid()
    ),
    "layer-norm": _between(nn.LayerNorm((4, 8, 8))),
    "layer-norm-plain": _between(nn.LayerNorm(8, elementwise_affine=False)),
    "layer-norm-read": lambda: Module(
        lambda n, x: n["a"](n["norm"](x)) + n["b"](n["norm"](x)[:, 1:2]),
        norm=nn.LayerNorm(8), a=nn.Linear(8, 3), b=nn.Linear(8, 3, bias=False),
    ),
    "group-norm": _between(nn.GroupNorm(2, 4)),
    "product-of-matrices": lambda: Module(lambda n, x: n["a"](x) @ x, a=nn.Linear(8, 8)),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 32, batch_first=True, activation="gelu")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_equals_the_reference_in_bits_and_the_float_network_closely(name):
    checked(seeded(PIECES[name]), (3, 8, 8), tolerance=1e-3)


def test_a_small_vision_transformer():
    module = seeded(lambda: vit(size=16, dimension=32, depth=2, heads=2))
    run = checked(module, (3, 16, 16), 1, 1e-3)
    rows = {row.operator: row.online.rounds for row in run.declared.rows}
    # A look at the whole: comparisons once per gelu, no gain of its own after a layer norm.
    assert rows["gelu"] == 4
    assert "mul" not in rows


@pytest.mark.slow
def test_the_vision_transformer_with_weights_that_matter():
    """Larger weights than those at the start of training: attention that chooses, activations on both sides."""
    module = seeded(vit)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(4)
    checked(module, (3, 32, 32), 2, 2e-2)


def test_matrices_multiply_exactly():
    ring, draws = Ring(8, 0), np.random.default_rng(0)
    x, y = (ring.from_integers(draws.integers(0, 256, shape)) for shape in ((5, 3, 4), (5, 4, 2)))
    shares, demand = (share(ring, x), share(ring, y)), MatrixProduct(3, 4, 2, 5)
    outcome = play(ring, demand, {}, lambda p, m: matrix_multiply(p, shares[0][p.number], shares[1][p.number], m))
    np.testing.assert_array_equal(reconstruct(ring, *outcome.results), x @ y)
    assert {(m.sent, m.rounds) for m in outcome.meters} == {(5 * 4 * 5, 1)}
    with pytest.raises(ConfigError, match="other shapes"):
        play(ring, demand, {}, lambda p, m: matrix_multiply(p, shares[1][p.number], shares[0][p.number], m))


@pytest.mark.parametrize(
    ("name", "operators"), [("layer-norm-read", {"layer_norm", "linear"}), ("layer-norm", {"mul"})]
)
def test_gains_of_layer_norms_sink_or_stand_for_themselves(name, operators):
    module = seeded(PIECES[name])
    network, x = capture(module, (3, 8, 8)), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sunk = sink_affines(network)
    assert operators <= {node.operator for node in sunk.nodes}
    assert not any(node.tensors for node in sunk.nodes if node.operator == "layer_norm")
    assert ("mul" in {node.operator for node in sunk.nodes}) == (name == "layer-norm")
    torch.testing.assert_close(to_module(sunk)(x), module(x), atol=1e-5, rtol=1e-5)


def test_values_outside_a_softmax_are_named():
    lowered = lower(capture(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), (4,)))
    for size, wrong in ((15.0, False), (16.0, True)):
        model = {name: np.full_like(t, size if t.ndim == 2 else 0) for name, t in lowered.model.items()}
        if wrong:
            with pytest.raises(OutOfRange, match="softmax"):
                check_range(lowered.plan, model, np.ones((1, 4), np.float32))
        else:
            assert check_range(lowered.plan, model, np.ones((1, 4), np.float32))["1:1.softmax"] == 60 / 62


def test_what_has_no_protocol_is_named():
    norms = {"a": nn.LayerNorm(8, eps=2.0), "b": nn.GroupNorm(1, 4)}
    module = Module(lambda n, x: torch.softmax(x, 1) + n["a"](x) + n["b"](x), **norms)
    with pytest.raises(UnsupportedOperators, match="3 unsupported operators"):
        lower(capture(module, (4, 128, 8)))


def test_an_activation_after_a_layer_needs_no_truncation_of_its_own():
    table = cost_table(lower(capture(seeded(PIECES["gelu"]), (3, 8, 8))).plan)
    assert [row.operator for row in table.rows] == ["conv2d", "gelu", "conv2d", "result"]
    assert [row.online.rounds for row in table.rows] == [1, 4, 1, 1]
