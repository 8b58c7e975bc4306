"""Binary layers against the formulas of XNOR-Net, written out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.quantized import signs
from edgeward.train import Context, CrossEntropy, Schedule
from edgeward.train.fit import fit
from edgeward.train.population import build
from edgeward.transforms import Binarize, BinaryConv2d, BinaryLinear, LatentProjection, project
from edgeward.transforms.quantize import QuantLinear
from edgeward.transforms.straight_through import sign
from edgeward.transforms.transform import refresh
from transforms.transform_networks import mlp, population, records, vgg


def test_straight_through_value_is_exact_and_gradient_is_the_window() -> None:
    x = torch.tensor([-1.5, -1.0, -0.3, -0.0, 0.0, 0.1, 0.999, 1.0, 7.0, 1e30], requires_grad=True)
    y = sign(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1, 1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("rule", ["xnor", "clip"])
def test_latent_gradient_is_the_formula(rule: str) -> None:
    layer = build(lambda: BinaryLinear(5, 3, rule=rule), Seed(1))
    layer.norm = nn.Identity()
    with torch.no_grad():
        layer.weight.mul_(4)  # some latent weights beyond 1
    x, g = records((5,), 7), records((3,), 7, seed=2)
    (layer(x) * g).sum().backward()
    w = layer.weight.detach()
    alpha = w.abs().mean(1, keepdim=True)
    upstream = g.T @ signs(x)  # gradient with respect to the binary weight
    window = (w.abs() < 1).float()
    expected = alpha * window * upstream
    if rule == "xnor":
        expected += torch.sign(w) * (torch.sign(w) * upstream).mean(1, keepdim=True)
    assert window.min() == 0
    torch.testing.assert_close(layer.weight.grad, expected)


def test_input_gradient_is_windowed() -> None:
    layer = build(lambda: BinaryLinear(4, 2), Seed(0))
    layer.norm = nn.Identity()
    x = torch.tensor([[0.5, -2.0, 0.0, 1.0]], requires_grad=True)
    layer(x).sum().backward()
    binary = signs(layer.weight.detach()) * layer.weight.detach().abs().mean(1, keepdim=True)
    torch.testing.assert_close(x.grad[0], binary.sum(0) * torch.tensor([1.0, 0.0, 1.0, 0.0]))


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 4),
    out=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    grouped=st.booleans(),
)
def test_convolution_is_scaled_agreement_of_signs(
    channels: int, out: int, kernel: int, stride: int, padding: int, dilation: int, grouped: bool
) -> None:
    groups = channels if grouped else 1
    layer = build(
        lambda: BinaryConv2d(channels, out * channels, kernel, stride, padding, dilation, groups), Seed(3)
    ).eval()
    x = records((channels, 7, 6), 2)
    padded = nn.functional.pad(signs(layer.norm(x)), [padding] * 4, value=-1.0)
    columns = nn.functional.unfold(padded, kernel, dilation=dilation, stride=stride)
    columns = columns.view(2, groups, -1, columns.shape[-1])
    weight = signs(layer.weight).view(groups, -1, columns.shape[2])
    agree = (columns[:, :, None] == weight[None, ..., None]).float().sum(3)
    dots = (2 * agree - columns.shape[2]).flatten(1, 2)
    alpha = layer.weight.abs().flatten(1).mean(1)
    torch.testing.assert_close(layer(x).flatten(2), dots * alpha.view(-1, 1))


def test_rank_three_linear_normalises_features() -> None:
    layer = build(lambda: BinaryLinear(4, 3), Seed(0))
    x = records((5, 4), 6) + torch.tensor([0.0, 3.0, -2.0, 1.0])
    flat = build(lambda: BinaryLinear(4, 3), Seed(0))
    torch.testing.assert_close(layer(x), flat(x.flatten(0, 1)).view(6, 5, 3))
    torch.testing.assert_close(layer.norm.running_mean, flat.norm.running_mean)


def test_binarize_leaves_edges_and_initial_weights() -> None:
    plain, binary = build(mlp, Seed(5)), build(Binarize().wrap(mlp), Seed(5))
    assert [type(layer) for layer in binary if not isinstance(layer, nn.ReLU)] == [nn.Linear, BinaryLinear, nn.Linear]
    for name, tensor in plain.named_parameters():
        if name != "2.bias":
            assert torch.equal(tensor, binary.get_parameter(name)), name
    edges = build(Binarize(edges_bits=8).wrap(mlp), Seed(5))
    assert isinstance(edges[0], QuantLinear)
    assert isinstance(edges[4], QuantLinear)
    assert edges[0].activation_bits == 32


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="edges_bits"):
        Binarize(edges_bits=16)
    with pytest.raises(ModelError, match="no layer is left"):
        Binarize().apply(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    with pytest.raises(ConfigError, match="'conv9'"):
        Binarize(skip=("conv9",)).apply(mlp())
    lopsided = nn.Sequential(
        nn.Conv2d(1, 1, 2, padding="same"), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.Linear(2, 2)
    )
    with pytest.raises(ModelError, match=r"2 layers(.|\n)*0: (.|\n)*1: "):
        Binarize(skip=()).apply(lopsided)


def test_projection_centres_clamps_and_refreshes() -> None:
    models = population(Binarize().wrap(vgg))
    for tensor in models.params.values():
        tensor.mul_(30)
    project(models)
    conv, linear = models.params["3.weight"], models.params["7.weight"]
    assert conv.abs().max() <= 1
    assert linear.abs().max() == 1
    assert torch.equal(models.buffers["3.scale"], conv.abs().flatten(2).mean(2))
    inside = models.params["0.weight"]
    assert inside.abs().max() > 1  # the first layer is not binary
    small = population(Binarize().wrap(vgg))
    project(small)
    torch.testing.assert_close(small.params["3.weight"].mean(2), torch.zeros(3, 8, 3, 3), atol=1e-6, rtol=0)


def test_refresh_is_needed_and_enough() -> None:
    models = population(Binarize().wrap(mlp))
    models.params["2.weight"].mul_(2)
    stale = models.buffers["2.scale"].clone()
    refresh(models)
    torch.testing.assert_close(models.buffers["2.scale"], 2 * stale)


def test_binary_networks_learn() -> None:
    """A task that a line cannot solve: the label is the sign of a product."""
    x = records((6,), 256)
    y = (x[:, 0] * x[:, 1] > 0).long()
    factory = Binarize().wrap(
        lambda: nn.Sequential(
            nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)
        )
    )
    models = population(factory, 2)
    schedule = Schedule(epochs=40, batch=64, rate=5e-3)
    context = Context(factory, x, y, torch.ones(2, 256, dtype=torch.bool), 2, (Seed(0), Seed(1)), schedule)
    fit(models, context, [CrossEntropy(), LatentProjection()])
    accuracy = (models.logits(x).argmax(2) == y).float().mean(1)
    assert accuracy.min() > 0.9, accuracy
    assert models.params["2.weight"].abs().max() <= 1
    torch.testing.assert_close(models.buffers["2.scale"], models.params["2.weight"].abs().mean(2))
