"""Every backend equals the reference interpreter within its declared error, or refuses with the layers' names.

A backend that declares no bound rounds values which the network keeps in float: its answers are then near the
reference's on average, and it is compared exactly with what it emits in its own tests.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.operator_table import CASES, BinaryConv2d, BinaryLinear, QuantizedConv2d, QuantizedLinear
from conformance.captured import captured
from edgeward.backends import BACKENDS, choose_backend
from edgeward.backends.cleartext.packed import PackedExecutable
from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import DataError, ModelError
from edgeward.graph import capture


def records(shape, count, seed):
    return (np.random.default_rng(seed).standard_normal((count, *shape)) * 2).astype(np.float32)


def assert_equal_to_reference(backend, network, shape, seed, flips=0.0):
    """Compare; `flips` is the share of answers that rounding may move across a step of a quantised layer."""
    x = records(shape, 4, seed)
    executable = backend.load(backend.lower(backend.ready(network, x)))
    expected, found = ReferenceExecutable(network).run(x), executable.run(x)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    if np.isinf(backend.tolerance):
        assert np.abs(found - expected).mean() <= 0.02 * np.ptp(np.append(expected, 0))
        return
    close = np.abs(found - expected) <= backend.tolerance * (1 + np.abs(expected))
    assert 1 - close.mean() <= flips, np.abs(found - expected).max()


def assert_refused(backend, network, reasons):
    """Only a backend of integers may refuse, for every layer that is not of integers, and in one error."""
    assert backend.slug == "c"
    integers = {"quantized_conv2d", "quantized_linear"}
    others = [node for node in network.nodes if node.tensors and node.operator not in integers]
    assert len(reasons) >= 1
    assert others or not any(node.operator in integers for node in network.nodes) or len(reasons) == 1
    with pytest.raises(ModelError, match="no int8 form") as caught:
        backend.lower(backend.ready(network, records(network.input_shape(), 4, 0)))
    assert all(reason in str(caught.value) for reason in reasons)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_backend_equals_reference_on_the_operator_table(backend, case):
    network = captured(case)
    if reasons := backend.reasons_against(network):
        assert_refused(backend, network, reasons)
        return
    assert_equal_to_reference(backend, network, case.input_shape, 0)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
def test_lowering_is_deterministic_and_wrong_input_is_one_error(backend):
    integers = bool(backend.reasons_against(captured(next(case for case in CASES if case.name == "residual"))))
    case = next(case for case in CASES if case.name == ("quantized_conv_8" if integers else "residual"))
    x = records(case.input_shape, 4, 0)
    artefact = backend.lower(backend.ready(captured(case), x))
    assert artefact == backend.lower(backend.ready(capture(case.module, case.input_shape), x))
    executable = backend.load(artefact)
    assert executable.run(records(case.input_shape, 0, 0)).shape == (0, 4, 4, 4) if integers else (0, 3, 8, 8)
    for wrong in ((2, 3, 8, 9), (2, 3), (2,)):
        with pytest.raises(DataError, match="do not fit"):
            executable.run(np.zeros(wrong, np.float32))
    for junk in (b"", b"\0" * 64, artefact[:-5], b"\x80" * 100):
        with pytest.raises(ModelError):
            backend.load(junk)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
def test_weights_that_are_no_numbers_are_refused(backend):
    module = nn.Linear(3, 2)
    module.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        backend.lower(capture(module, (3,)))


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation = [draw(st.integers(1, 3)) for _ in "hw"], [draw(st.integers(1, 2)) for _ in "hw"]
    stride, padding = [draw(st.integers(1, 3)) for _ in "hw"], [draw(st.integers(0, 3)) for _ in "hw"]
    size = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) + draw(st.integers(0, 4)) for i in (0, 1)]
    bias = draw(st.booleans())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 999)))
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    return layer, (inputs, *size)


@st.composite
def pools(draw):
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    stride, padding = [draw(st.integers(1, 4)) for _ in "hw"], [draw(st.integers(0, k // 2)) for k in kernel]
    ceil = draw(st.booleans())
    size = [kernel[i] + draw(st.integers(0, 5)) for i in (0, 1)]
    if draw(st.booleans()):
        layer = nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()))
    else:
        layer = nn.MaxPool2d(kernel, stride, padding, 1, False, ceil)
    return layer, (draw(st.integers(1, 3)), *size)


@st.composite
def narrow_layers(draw):
    kind, outputs = draw(st.sampled_from(["bl", "bc", "ql", "qc"])), draw(st.integers(1, 5))
    inputs, groups = draw(st.integers(1, 70)), draw(st.sampled_from([1, 2, 3]))
    bits, activations = draw(st.sampled_from([4, 8])), draw(st.sampled_from([2, 8, 32]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 999)))
        if kind == "bl":
            return BinaryLinear(inputs, outputs, draw(st.booleans())), (inputs,)
        if kind == "ql":
            return QuantizedLinear(inputs, outputs, bits, activations), (inputs,)
        inputs, size = groups * draw(st.integers(1, 3)), (draw(st.integers(3, 7)), draw(st.integers(3, 7)))
        if kind == "bc":
            stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 2))
            return BinaryConv2d(inputs, outputs * groups, stride, padding, groups), (inputs, *size)
        return QuantizedConv2d(inputs, outputs * groups, bits, activations, groups), (inputs, *size)


@settings(max_examples=25, deadline=None)
@given(st.one_of(convolutions(), pools(), narrow_layers()), st.integers(0, 999))
def test_backends_equal_reference_on_drawn_layers(drawn, seed):
    module, shape = drawn
    network = capture(module.eval().requires_grad_(False), shape)
    for backend in BACKENDS.values():
        if not backend.reasons_against(network):
            assert_equal_to_reference(backend, network, shape, seed)
        else:
            assert backend.slug == "c"
    artefact, x = BACKENDS["packed"].lower(network), records(shape, 3, seed)
    found = [PackedExecutable(artefact, native=native).run(x).tobytes() for native in (True, False)]
    assert found[0] == found[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_packed_bits_do_not_depend_on_kernels_or_on_the_batch(case):
    artefact, x = BACKENDS["packed"].lower(captured(case)), records(case.input_shape, 5, 1)
    compiled, portable = PackedExecutable(artefact, native=True), PackedExecutable(artefact, native=False)
    together = compiled.run(x)
    assert together.tobytes() == portable.run(x).tobytes()
    assert together.tobytes() == np.concatenate([compiled.run(x[i : i + 1]) for i in range(5)]).tobytes()


def test_choice_prefers_packed_below_eight_bits():
    by_name = {case.name: captured(case) for case in CASES}
    assert choose_backend(by_name["conv"]).slug == "onnx"
    assert choose_backend(by_name["quantized_conv_8"]).slug == "onnx"
    for name in ("binary_conv", "quantized_linear_4_weights_only", "binary_mlp"):
        assert choose_backend(by_name[name]).slug == "packed"


def test_a_microcontroller_gets_c_where_all_layers_are_integers():
    by_name = {case.name: captured(case) for case in CASES}
    for name in ("quantized_conv_8", "quantized_linear_8", "quantized_conv_4_depthwise"):
        assert choose_backend(by_name[name], "mcu").slug == "c"
        assert {choose_backend(by_name[name], kind).slug for kind in ("linux", "phone", "x86")} <= {"onnx", "packed"}
    for name in ("conv", "binary_conv", "binary_mlp", "max_pool"):
        assert choose_backend(by_name[name], "mcu") is choose_backend(by_name[name])


def test_no_backend_names_all_reasons():
    network = capture(nn.Sequential(QuantizedLinear(4, 4, 9, 8), QuantizedLinear(4, 4, 12, 20)).eval(), (4,))
    with pytest.raises(ModelError, match=r"(?s)onnx.*not 9.*packed.*12 bits.*20 bits"):
        choose_backend(network)
    with pytest.raises(ModelError, match="3 reasons"):
        BACKENDS["packed"].lower(network)
