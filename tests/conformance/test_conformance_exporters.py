"""Every exported file: what it holds is what was promised, read back by the formats' own libraries."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load as load_safetensors
from torch import nn

from backends.operator_table import CASES, BinaryConv2d, BinaryLinear, QuantizedConv2d, QuantizedLinear
from conformance.captured import captured
from edgeward.backends import BACKENDS
from edgeward.backends.cleartext.onnx_lowering import to_onnx
from edgeward.backends.cleartext.packed_lowering import to_packed
from edgeward.backends.cleartext.storage import storage_report
from edgeward.graph import capture


def binary_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            BinaryConv2d(64, 64, 1, 1),
            nn.BatchNorm2d(64),
            BinaryConv2d(64, 128, 2, 1),
            nn.BatchNorm2d(128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            BinaryLinear(128, 100, bias=False),
            nn.BatchNorm1d(100),
            nn.Linear(100, 10),
        )
    return capture(module.eval(), (64, 8, 8))


def test_binary_weights_take_one_bit_each():
    report = storage_report(binary_network())
    weights = 64 * 64 * 9 + 128 * 64 * 9 + 100 * 128
    assert report.binary_bits_per_weight == pytest.approx(1.0, rel=0.05)
    assert sum(layer.weights for layer in report.layers if layer.operator.startswith("binary")) == weights
    assert report.file_bytes == report.tensor_bytes + report.graph_bytes == len(to_packed(binary_network()))
    assert report.file_bytes < weights / 8 + 4 * (2 * (64 + 128 + 100) + 1010) + 4096


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_k_bit_weights_take_k_bits_each(bits):
    module = QuantizedLinear(400, 30, bits, 8)
    report = storage_report(capture(module.eval(), (400,)))
    (layer,) = report.layers
    assert layer.weight_bytes == -(-400 * 30 * bits // 8)
    assert layer.other_bytes == 4 * (30 + 30 + 2)
    assert layer.bits_per_weight == pytest.approx(bits, rel=0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_packed_files_are_safetensors(case):
    artefact = to_packed(captured(case))
    tensors = load_safetensors(artefact)
    header = json.loads(artefact[8 : 8 + int.from_bytes(artefact[:8], "little")])
    assert header["__metadata__"]["format"] == "edgeward-packed"
    assert header["__metadata__"]["version"] == "1"
    assert set(tensors) == set(header) - {"__metadata__"}


def test_eight_bit_onnx_holds_int8_and_asks_for_uint8():
    module = QuantizedConv2d(16, 32, 8, 8)
    model = to_onnx(capture(module.eval(), (16, 8, 8)))
    kinds = {t.name: (t.data_type, list(t.dims)) for t in model.graph.initializer}
    assert (onnx.TensorProto.INT8, [32, 16, 3, 3]) in kinds.values()
    large = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 32]
    assert not large
    zero_points = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8]
    assert [numpy_helper.to_array(t).item() for t in zero_points] == [128]
    weight = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8)
    expected = torch.round(module.weight / module.weight_scale.reshape(-1, 1, 1, 1)).clamp(-127, 127)
    assert np.array_equal(numpy_helper.to_array(weight), expected.detach().numpy().astype(np.int8))
    assert model.ByteSize() < 32 * 16 * 9 + 2000


def test_four_bit_onnx_holds_int4():
    model = to_onnx(capture(QuantizedLinear(64, 32, 4, 32).eval(), (64,)))
    (weight,) = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4]
    assert len(weight.raw_data) == 64 * 32 // 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnx_passes_the_checker_and_tells_nothing_of_its_maker(case):
    model = to_onnx(captured(case))
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == ["input"]
    assert model.graph.output[-1].name == "logits"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert not model.producer_name
    assert not model.doc_string
    assert not model.metadata_props
    assert not any(node.doc_string for node in model.graph.node)
    assert {node.domain for node in model.graph.node} <= {""}


class TwoExits(nn.Module):
    """An early-exit network."""

    def __init__(self, linear):
        super().__init__()
        self.body, self.first, self.last = linear(6, 6), linear(6, 3), linear(6, 3)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.first(h), self.last(h)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
def test_all_exits_are_exported_and_the_last_is_the_answer(backend):
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    module = TwoExits(nn.Linear).eval()
    if backend.reasons_against(capture(module, (6,))):
        module = TwoExits(lambda inputs, outputs: QuantizedLinear(inputs, outputs, 8, 8)).eval()
    executable = backend.load(backend.lower(backend.ready(capture(module, (6,)), x)))
    near = 1e-6 if np.isfinite(backend.tolerance) else 0.1
    with torch.no_grad():
        first, last = (value.numpy() for value in module(torch.from_numpy(x)))
    found = executable.run_all(x)
    assert len(found) == 2
    np.testing.assert_allclose(found[0], first, atol=near)
    np.testing.assert_allclose(found[1], last, atol=near)
    assert np.array_equal(executable.run(x), found[1])
