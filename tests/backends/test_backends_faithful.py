"""Files against their networks: hard scales, lost biases, and a comparison that refuses what differs."""

import copy
import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.backends import BACKENDS
from edgeward.backends.backend import OnnxBackend
from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.backends.faithful import probes
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture
from edgeward.graph.quantized import BIAS_STEPS
from edgeward.train import Population
from edgeward.transforms import PostTraining, QuantConv2d, QuantizeAware, QuantLinear, calibrate, transform_population

SHAPE = (4, 6, 6)
LAYERS = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "pointwise": lambda: nn.Conv2d(4, 4, 1),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
}


def _image(layer):
    """A layer between rectifiers, where ONNX Runtime fuses it with the rounding on both sides."""
    return nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.ReLU(), layer(), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def _vector():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(SHAPE), 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)
    )


def _built(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = _vector() if kind == "dense" else _image(LAYERS[kind])
    return model.eval(), model[3] if kind == "dense" else model[2]


@torch.no_grad()
def _empty_filter(model, layer):
    layer.weight[0] = 0
    layer.bias[0] = 2.0


@torch.no_grad()
def _tiny_filter(model, layer):
    layer.weight[0] *= 1e-9
    layer.bias[0] = 2.0


@torch.no_grad()
def _tiny_layer(model, layer):
    layer.weight *= 1e-7
    layer.bias += 1.0


@torch.no_grad()
def _all_empty(model, layer):
    layer.weight.zero_()
    layer.bias[:] = torch.tensor([2.0, -1.0, 0.5, 0.0])


@torch.no_grad()
def _dead_input(model, layer):
    before = model[0] if isinstance(model[0], nn.Conv2d) else model[1]
    before.weight.zero_()
    before.bias.fill_(-1.0)
    layer.bias[:] = torch.tensor([2.0, 1.0, 0.5, 3.0])


@torch.no_grad()
def _dead_channels(model, layer):
    before = model[0] if isinstance(model[0], nn.Conv2d) else model[1]
    before.weight[:2] = 0
    before.bias[:2] = -1.0
    layer.bias += 1.0


@torch.no_grad()
def _tiny_input(model, layer):
    before = model[0] if isinstance(model[0], nn.Conv2d) else model[1]
    before.weight *= 1e-7
    before.bias *= 1e-7
    layer.bias[:] = torch.tensor([2.0, 1.0, 0.5, 3.0])


@torch.no_grad()
def _huge_bias(model, layer):
    layer.bias[0] = 1e7


KINDS = (
    *(_empty_filter, _tiny_filter, _tiny_layer, _all_empty),
    *(_dead_input, _dead_channels, _tiny_input, _huge_bias),
)


def _records(count=64, seed=0):
    return torch.randn(count, *SHAPE, generator=Seed(seed).torch())


def _rounded(model, bits=8):
    def factory():
        return _copy(model)

    population, changed = transform_population(Population.stack([_copy(model)]), factory, PostTraining(bits))
    calibrate(population, _records())
    return capture(population.member(0, changed), SHAPE)


def _copy(model):
    return copy.deepcopy(model)


@functools.cache
def _spoiled(spoil, kind):
    """Return a spoiled model and its network in int8, the same for every form."""
    model, layer = _built(kind)
    spoil(model, layer)
    return model, _rounded(model)


@pytest.mark.parametrize("slug", ["onnx", "packed", "c"])
@pytest.mark.parametrize("kind", [*LAYERS, "dense"])
@pytest.mark.parametrize("spoil", KINDS, ids=lambda spoil: spoil.__name__)
def test_int8_files_keep_every_bias(spoil, kind, slug):
    model, rounded = _spoiled(spoil, kind)
    backend, x = BACKENDS[slug], _records()
    network = backend.ready(rounded, x.numpy())
    found = backend.load(backend.lower(network)).run(x.numpy())
    with torch.no_grad():
        expected = model(x).numpy()
    reach = np.ptp(np.append(expected, 0))
    assert np.abs(found - expected).max() <= (0.06 if slug == "c" else 0.04) * reach


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from([*LAYERS, "dense"]),
    bits=st.sampled_from([4, 8]),
    gain=st.floats(-14, 3),
    shift=st.floats(-9, 6),
    seed=st.integers(0, 99),
)
def test_any_weights_and_biases_agree_in_every_form(kind, bits, gain, shift, seed):
    model, layer = _built(kind)
    draw = Seed(seed).torch()
    with torch.no_grad():
        layer.weight *= (
            (torch.rand(4, generator=draw) * gain).pow(2).neg().exp().reshape(-1, *[1] * (layer.weight.dim() - 1))
        )
        layer.weight[1] *= 10.0**gain
        layer.bias[1] = 10.0**shift
    network, x = _rounded(model, bits), _records(32, seed).numpy()
    expected = ReferenceExecutable(network).run(x)
    for slug in ("onnx", "packed"):
        found = BACKENDS[slug].load(BACKENDS[slug].lower(network)).run(x)
        assert np.abs(found - expected).mean() <= 0.01 * np.ptp(np.append(expected, 0)), slug


@pytest.mark.parametrize("rounding", [PostTraining(), QuantizeAware(4, 8, skip=())])
def test_steps_bear_their_biases_after_training_and_calibration(rounding):
    model, layer = _built("conv")
    _huge_bias(model, layer)
    population, _ = transform_population(Population.stack([_copy(model)]), lambda: _copy(model), rounding)
    if isinstance(rounding, PostTraining):
        calibrate(population, _records())
    else:
        population.forward(_records(), training=True, per_model=False)
    for name in ("0", "2", "4"):
        grid = population.buffers[f"{name}.weight_scale"] * population.buffers[f"{name}.activation_scale"][:, None]
        assert (population.params[f"{name}.bias"].abs() <= BIAS_STEPS * grid * (1 + 1e-5)).all()


@pytest.mark.parametrize("step", [1e-8, 1e-18, 1e-30])
@pytest.mark.parametrize("linear", [False, True])
def test_onnx_keeps_biases_on_steps_that_cannot_bear_them(step, linear):
    """Networks that were not made here: the bias then leaves the fused layer."""
    layer = QuantLinear(4, 4) if linear else QuantConv2d(4, 4, 1)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias[0] = 5.0
        layer.settle()
        layer.weight_scale[0] = step
        layer.activation_scale.fill_(0.02)
        layer.activation_zero_point.fill_(100.0)
    shape = (4,) if linear else (4, 3, 3)
    last = _copy(layer)
    network = capture(nn.Sequential(layer, nn.ReLU(), last).eval(), shape)
    x = torch.randn(16, *shape, generator=Seed(0).torch()).numpy()
    found = BACKENDS["onnx"].load(BACKENDS["onnx"].lower(network)).run(x)
    np.testing.assert_allclose(found, ReferenceExecutable(network).run(x), atol=1e-4)


def _without_bias(network, place):
    """Return the network with the bias of one product set to zero."""
    held = [
        node
        for node in network.nodes
        if "bias" in node.tensors and node.operator.split("_")[-1] in ("conv2d", "linear")
    ]
    key = held[place].tensors["bias"]
    return replace(network, tensors={**network.tensors, key: torch.zeros_like(network.tensors[key])})


@pytest.mark.parametrize("slug", ["onnx", "packed", "c"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [*LAYERS, "dense"])
def test_a_file_that_lost_a_bias_is_refused(kind, place, slug, monkeypatch):
    model, _ = _built(kind)
    with torch.no_grad():
        for layer in model:
            if hasattr(layer, "bias"):
                layer.bias.fill_(1.0)
    backend = BACKENDS[slug]
    network = backend.ready(_rounded(model), _records().numpy())
    kept = type(backend).write
    monkeypatch.setattr(type(backend), "write", lambda self, n: kept(self, _without_bias(n, place)))
    with pytest.raises(
        ModelError, match=r"does not compute what the network computes(.|\n)*expected(.|\n)*in place of"
    ):
        backend.lower(network)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_file_with_one_wrong_weight_sign_is_refused(rounded, monkeypatch):
    model, _ = _built("conv")
    network = _rounded(model) if rounded else capture(model, SHAPE)
    key = network.nodes[2].tensors["weight"]
    wrong = network.tensors[key].clone()
    wrong[0] *= -1
    kept = OnnxBackend.write
    other = replace(network, tensors={**network.tensors, key: wrong})
    monkeypatch.setattr(OnnxBackend, "write", lambda self, _: kept(self, other))
    with pytest.raises(ModelError, match="does not compute"):
        BACKENDS["onnx"].lower(network)


def test_a_file_that_answers_nothing_finite_is_refused(monkeypatch):
    model, _ = _built("conv")
    network = capture(model, SHAPE)
    executable = BACKENDS["onnx"].load(BACKENDS["onnx"].write(network))
    monkeypatch.setattr(type(executable), "run_all", lambda self, x: (np.full((len(x), 4), np.nan, np.float32),))
    with pytest.raises(ModelError, match="does not compute"):
        BACKENDS["onnx"].lower(network)


def test_every_backend_declares_the_drift_it_is_held_to():
    assert all(0 < backend.drift < 0.05 for backend in BACKENDS.values())


def test_probes_are_random_and_extreme_and_lie_in_the_calibrated_range():
    model, _ = _built("conv")
    found = probes(_rounded(model))
    assert set(found) == {"normal", "uniform", "extreme", "calibrated"}
    assert all(records.dtype == np.float32 and records.shape[1:] == SHAPE for records in found.values())
    assert np.abs(found["extreme"]).max() == 10
    assert not found["extreme"][0].any()
    low, high = float(_records().min()), float(_records().max())
    assert low * 1.05 <= found["calibrated"].min() < low / 2
    assert high / 2 < found["calibrated"].max() <= high * 1.05
