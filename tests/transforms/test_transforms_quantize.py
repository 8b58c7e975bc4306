"""k-bit layers, their ranges, and calibration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.core.errors import ConfigError, DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.quantized import fake_quantize_activation, fake_quantize_weight
from edgeward.train import Context, CrossEntropy, Schedule
from edgeward.train.fit import fit
from edgeward.train.population import build
from edgeward.transforms import (
    FreshScales,
    PostTraining,
    QuantConv2d,
    QuantizeAware,
    QuantLinear,
    calibrate,
    require_calibrated,
    transfer,
    transform_population,
)
from edgeward.transforms.ranges import GAUSSIAN_STEP, affine, symmetric_scale
from transforms.transform_networks import mlp, population, records, vgg


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), low=st.floats(-50, 50), span=st.floats(0, 100))
def test_affine_covers_the_range_and_zero(bits: int, low: float, span: float) -> None:
    bounds = torch.tensor(low), torch.tensor(low + span)
    scale, zero = affine(*bounds, bits)
    assert zero == zero.round()
    assert 0 <= zero <= 2**bits - 1
    x = torch.cat([torch.linspace(low, low + span, 50), torch.zeros(1)])
    rounded = fake_quantize_activation(x, scale, zero, bits)
    assert rounded[-1] == 0
    assert (rounded - x).abs().max() <= scale * (1 + 1e-4) + 1e-6  # half a step, and half a step of the zero point


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), seed=st.integers(0, 99), size=st.floats(1e-3, 1e3))
def test_weight_scale_reaches_the_largest_weight_or_the_gaussian_step(bits: int, seed: int, size: float) -> None:
    weight = records((4, 3), 5, seed) * size
    scale = symmetric_scale(weight, bits)
    error = (fake_quantize_weight(weight, scale, bits) - weight).abs().flatten(1).amax(1)
    if bits >= 6:
        assert (error <= scale / 2 * (1 + 1e-4)).all()
    else:
        rms = weight.flatten(1).square().mean(1).sqrt()
        assert (scale <= GAUSSIAN_STEP[bits] * rms * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", sorted(GAUSSIAN_STEP))
def test_gaussian_steps_are_optimal(bits: int) -> None:
    x = torch.erfinv(torch.linspace(-1, 1, 200_003, dtype=torch.float64)[1:-1]) * 2**0.5

    def error(step: float) -> float:
        return float((fake_quantize_weight(x[None], torch.tensor([step]), bits) - x).square().mean())

    best = error(GAUSSIAN_STEP[bits])
    assert best < min(error(GAUSSIAN_STEP[bits] * factor) for factor in (0.97, 1.03))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_eight_bits_are_closer_than_two(bits: int) -> None:
    models = population(vgg, settle=(2, 8, 8))
    x = records((2, 8, 8), 64)
    narrow, _ = transform_population(models, vgg, PostTraining(bits, 8))
    calibrate(narrow, x)
    error = (narrow.logits(x) - models.logits(x)).square().mean().sqrt() / models.logits(x).std()
    assert error < {2: 1.2, 3: 0.7, 4: 0.35, 8: 0.03}[bits]


def test_gradient_passes_weights_and_the_representable_inputs() -> None:
    layer = build(lambda: QuantLinear(3, 2, weight_bits=4, activation_bits=4), Seed(0)).eval()
    layer.activation_scale.fill_(0.1)
    layer.activation_zero_point.fill_(5.0)  # represents -0.5 to 1.0
    x = torch.tensor([[-0.7, 0.31, 1.4]], requires_grad=True)
    layer(x).sum().backward()
    rounded = fake_quantize_weight(layer.weight.detach(), layer.weight_scale, 4)
    torch.testing.assert_close(x.grad[0], rounded.sum(0) * torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[-0.5, 0.3, 1.0]]).expand(2, 3))


def test_training_follows_ranges_and_eval_does_not() -> None:
    layer = build(lambda: QuantLinear(3, 2, momentum=0.5), Seed(0))
    layer(torch.tensor([[0.0, 1.0, -1.0]]))
    assert (layer.activation_low, layer.activation_high) == (-1.0, 1.0)
    layer(torch.tensor([[0.0, 3.0, -1.0]]))
    assert (layer.activation_low, layer.activation_high) == (-1.0, 2.0)
    layer.eval()(torch.tensor([[0.0, 90.0, -90.0]]))
    assert (layer.activation_high, layer.activation_seen) == (2.0, 2.0)


def test_calibration_is_per_model_and_independent_of_chunks() -> None:
    models, factory = transform_population(population(mlp), mlp, PostTraining())
    x = records((6,), 40)
    with pytest.raises(ModelError, match="0, 2, 4"):
        require_calibrated(models)
    calibrate(models, x)
    require_calibrated(models)
    first = models.clone()
    calibrate(models, x, chunk=7)
    for name, tensor in models.buffers.items():
        if not name.endswith("seen"):
            assert torch.equal(tensor, first.buffers[name]), name
    dense = population(mlp)
    for index in range(3):
        hidden = dense.member(index, mlp)[:2](x)
        assert torch.allclose(models.buffers["2.activation_high"][index], hidden.max(), rtol=1e-5)
    assert len(set(models.buffers["2.activation_high"].tolist())) == 3
    assert torch.equal(models.logits(x)[1], models.select([1]).logits(x)[0])
    torch.testing.assert_close(models.member(1, factory)(x), models.logits(x)[1], rtol=0, atol=1e-6)


def test_calibration_mends_stale_weight_scales() -> None:
    models, _ = transform_population(population(mlp), mlp, PostTraining())
    fresh = models.buffers["0.weight_scale"].clone()
    models.params["0.weight"].mul_(2)
    calibrate(models, records((6,), 4))
    torch.testing.assert_close(models.buffers["0.weight_scale"], 2 * fresh)


def test_percentile_ignores_an_outlier() -> None:
    models, _ = transform_population(population(mlp), mlp, PostTraining())
    x = records((6,), 200)
    calibrate(models, x, percentile=99.5)
    calm = models.buffers["0.activation_scale"].clone()
    x[0, 0] = 1000.0
    calibrate(models, x, percentile=99.5)
    assert torch.allclose(models.buffers["0.activation_scale"], calm, rtol=0.1)
    calibrate(models, x)
    assert models.buffers["0.activation_scale"].min() > 50 * calm.max()


def test_calibration_refuses_bad_records() -> None:
    models, _ = transform_population(population(mlp), mlp, PostTraining())
    with pytest.raises(DataError, match="NaN"):
        calibrate(models, torch.full((3, 6), float("nan")))
    with pytest.raises(DataError, match="no record"):
        calibrate(models, torch.zeros(0, 6))
    with pytest.raises(ConfigError, match="percentile"):
        calibrate(models, torch.zeros(2, 6), percentile=0.1)


@pytest.mark.parametrize("widths", [(1, 8), (9, 8), (8, 1), (32, 8), (8, 16)])
def test_impossible_widths_are_refused_everywhere(widths: tuple[int, int]) -> None:
    for build_it in (QuantizeAware, PostTraining, lambda w, a: QuantConv2d(1, 1, 1, weight_bits=w, activation_bits=a)):
        with pytest.raises(ConfigError, match="widths"):
            build_it(*widths)


def test_quantize_aware_edges() -> None:
    module = QuantizeAware(2, 4).apply(vgg())
    widths = [(m.weight_bits, m.activation_bits) for m in module.modules() if isinstance(m, (QuantLinear, QuantConv2d))]
    assert widths == [(8, 32), (2, 4), (2, 4), (8, 32)]
    module = QuantizeAware(2, 4, skip=("first", "3"), edges_bits=32).apply(vgg())
    assert type(module[0]) is nn.Conv2d
    assert type(module[3]) is nn.Conv2d
    assert isinstance(module[7], QuantLinear)


def test_student_starts_from_its_teacher_and_two_bits_learn() -> None:
    x = records((6,), 256)
    y = (x[:, 0] * x[:, 1] > 0).long()
    members = torch.ones(2, 256, dtype=torch.bool)
    dense_factory = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    dense = population(dense_factory, 2)
    seeds = (Seed(0), Seed(1))
    schedule = Schedule(epochs=40, batch=64, rate=5e-3)
    fit(dense, Context(dense_factory, x, y, members, 2, seeds, schedule), [CrossEntropy()])
    factory = QuantizeAware(2, 4).wrap(dense_factory)
    student = population(factory, 2)
    left = transfer(dense, student)
    assert set(left) == {name for name in student.buffers if "activation" in name}
    assert torch.equal(student.params["2.weight"], dense.params["2.weight"])
    context = Context(factory, x, y, members, 2, seeds, Schedule(epochs=20, batch=64, rate=2e-3))
    fit(student, context, [CrossEntropy(), FreshScales()])
    accuracy = (student.logits(x).argmax(2) == y).float().mean(1)
    assert accuracy.min() > 0.9, accuracy
    weight = student.params["2.weight"]
    torch.testing.assert_close(
        student.buffers["2.weight_scale"], torch.stack([symmetric_scale(model, 2) for model in weight])
    )
