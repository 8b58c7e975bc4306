"""Cost follows what a device would run: the int8 C on a microcontroller, a runtime's file elsewhere."""

import os
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_networks import Stack, autoencoder, ds_cnn, mobilenet_v1_quarter, resnet8

from edgeward.backends import BACKENDS
from edgeward.codegen.arena import aligned, plan
from edgeward.codegen.calibration import calibrated
from edgeward.codegen.emit import emit
from edgeward.codegen.quantize import quantize, quantize_calibrated, structure
from edgeward.codegen.scratch import scratch_bytes
from edgeward.core.budget import Budget
from edgeward.devices import devices, load_profile
from edgeward.graph import capture, fold_batch_norm
from edgeward.measure.cost import fits, network_cost
from edgeward.measure.form import device_form
from edgeward.nets import PRETRAINED, pretrained

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))
BOARDS = [name for name in devices() if load_profile(name).kind == "mcu"]
OTHERS = [name for name in devices() if load_profile(name).kind != "mcu"]


def peak(network, board):
    return network_cost(network, load_profile(board))[0].value("peak_ram_bytes")


def rounded(network):
    """Return a float network with every convolution and linear layer in 8 bits, its scales from its weights."""
    nodes, tensors = [], dict(network.tensors)
    for node in network.nodes:
        if node.operator in ("conv2d", "linear"):
            weight = network.tensor(node, "weight").flatten(1).abs().amax(1)
            new = {"weight_scale": weight.clamp(min=1e-6) / 127, "activation_scale": torch.tensor(0.05)}
            new["activation_zero_point"] = torch.tensor(128.0)
            keys = {role: f"{node.name}.{role}" for role in new}
            tensors |= {keys[role]: tensor for role, tensor in new.items()}
            bits = {"weight_bits": 8, "activation_bits": 8}
            held = {**node.tensors, **keys}
            node = replace(
                node, operator=f"quantized_{node.operator}", attributes={**node.attributes, **bits}, tensors=held
            )
        nodes.append(node)
    return replace(network, nodes=tuple(nodes), tensors=tensors)


def published(name):
    return fold_batch_norm(capture(pretrained(name, root=DATA), PRETRAINED[name].input_shape))


@pytest.mark.skipif(not (DATA / "mlperf-tiny").is_dir(), reason="the published weights are not in EDGEWARD_DATA")
@pytest.mark.parametrize("name", ["ds_cnn_kws", "mobilenet_v1_vww", "resnet_tiny_cifar10"])
def test_published_networks_need_their_planned_arena_and_their_input(name):
    network = published(name)
    x = np.random.default_rng(0).standard_normal((1, *network.input_shape())).astype(np.float32)
    graph = quantize(network, {network.inputs[0]: x})
    program, integers = emit(graph, plan(graph)), rounded(network)
    for board in ("cortex-m4", "cortex-m7"):
        assert peak(integers, board) == program.arena_bytes + prod(network.input_shape())
    quantity = network_cost(integers, load_profile("cortex-m4"))[0]["peak_ram_bytes"]
    assert f"arena {program.arena_bytes:,} B, input {prod(network.input_shape()):,} B" in quantity.source


@pytest.mark.parametrize("board", BOARDS)
def test_the_image_classifier_by_hand(board):
    # the second convolution of the first stack: its input, its output and the shortcut it is added to, all 16x32x32;
    # four windows of 3x3x16 laid out; and the 3x32x32 record with the caller
    assert peak(resnet8(), board) == 3 * 16 * 32 * 32 + 4 * 3 * 3 * 16 + 3 * 32 * 32 == 52_800
    # a linear layer of 640 features: the vectors of two layers, the record
    assert peak(autoencoder(), board) == 640 + 128 + 640


def test_budgets_accept_what_fits():
    (limit,) = Budget(peak_ram="52800B").limits()
    assert not limit.miss(peak(resnet8(), "cortex-m7"))
    (tighter,) = Budget(peak_ram="52799B").limits()
    assert tighter.miss(peak(resnet8(), "cortex-m7"))
    board = load_profile("cortex-m7")
    exactly = replace(board, ram_bytes=replace(board.ram_bytes, value=52_800))
    assert fits(network_cost(resnet8(), exactly)[0], exactly) == []
    less = replace(board, ram_bytes=replace(board.ram_bytes, value=52_799))
    assert len(fits(network_cost(resnet8(), less)[0], less)) == 1


LAYER = st.tuples(
    st.sampled_from(["conv", "pointwise", "depthwise", "pool", "skip"]), st.integers(1, 20), st.booleans()
)


SIZES = st.tuples(st.integers(1, 8), st.integers(8, 16), st.integers(8, 16))


def stacked(size, layers, precision):
    """Return layers (kind, channels, with a rectifier) on a map of `size`, a mean and a linear layer."""
    stack = Stack(*size)
    for kind, out, rectified in layers:
        before, channels = stack.last, stack.shape[0]
        if kind == "depthwise":
            stack.depthwise(precision=precision)
        elif kind == "pool" and min(stack.shape[1:]) >= 2:
            stack.max_pool()
        else:
            stack.conv(channels if kind == "skip" else out, 1 if kind == "pointwise" else 3, precision=precision)
            if kind == "skip":
                stack.add(before)
        if rectified:
            stack.same("relu")
    return stack.global_pool().flatten().linear(3, precision=precision).network()


@settings(max_examples=20, deadline=None)
@given(SIZES, st.lists(LAYER, max_size=5))
def test_int8_c_holds_every_layer_and_no_more_than_its_slack(size, layers):
    network = stacked(size, layers, (8, 8))
    graph, found = structure(network), peak(network, "cortex-m4")
    given_bytes = network.values[network.inputs[0]].elements
    for node in graph.nodes:
        inside = {name for name in (*node.inputs, node.output) if name not in graph.inputs}
        assert found >= given_bytes + sum(graph.values[name].bytes for name in inside) + scratch_bytes(graph, node)
    # what a runtime must hold at least, in bytes; on top the record, which stays with the caller; the laid out windows;
    # and what a place at a multiple of 16 costs each value that is alive with others
    floor = device_form(network, load_profile("rpi4")).peak_bytes
    windows = max(aligned(scratch_bytes(graph, node)) for node in graph.nodes)
    assert found <= floor + given_bytes + windows + 16 * 4


@settings(max_examples=15, deadline=None)
@given(SIZES, st.lists(LAYER, max_size=5))
def test_int8_c_never_needs_more_than_the_float_file(size, layers):
    narrow, wide = (stacked(size, layers, precision) for precision in ((8, 8), None))
    # on small maps the laid out windows can outweigh the three bytes saved per element
    windows = max(aligned(scratch_bytes(g, node)) for g in [structure(narrow)] for node in g.nodes)
    assert peak(narrow, "cortex-m4") <= peak(wide, "cortex-m4") + windows


@pytest.mark.parametrize("network", [resnet8(), ds_cnn(), autoencoder()], ids=["ic", "kws", "ad"])
def test_int8_c_needs_less_than_the_onnx_file_of_the_same_network(network):
    # not so for the visual wake words: its record is a third of the peak, and the caller keeps it
    assert peak(network, "cortex-m7") < device_form(network, load_profile("rpi4")).peak_bytes


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 8), (8, 32)])
def test_every_network_of_integer_layers_runs_as_int8_c_on_a_microcontroller_only(bits):
    network = ds_cnn(bits)
    assert {device_form(network, load_profile(name)).backend for name in BOARDS} == {"c"}
    elsewhere = {device_form(network, load_profile(name)).backend for name in OTHERS}
    assert elsewhere == {"onnx" if bits[0] == 8 else "packed"}
    assert not any(device_form(network, load_profile(name)).why_not for name in devices())


def test_c_stores_a_byte_per_weight_whatever_the_bits():
    few, eight = (network_cost(ds_cnn(bits), load_profile("cortex-m4"))[0] for bits in ((4, 8), (8, 8)))
    assert few.value("weight_bytes") == eight.value("weight_bytes")
    graph = structure(ds_cnn())
    assert eight.value("weight_bytes") == sum(tensor.nbytes for tensor in graph.tensors.values())


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("precision", "slug", "reason", "more"),
    [
        (None, "onnx", "its weights are float", 28),  # and that no layer is left
        ("binary", "packed", "its weights have one bit", 28),
        ((4, 4), "packed", "inputs of 4 bits, C rounds to 8", 27),
    ],
)
def test_where_no_form_runs_the_cost_says_so(board, precision, slug, reason, more):
    network, profile = mobilenet_v1_quarter(precision), load_profile(board)
    form, cost = device_form(network, profile), network_cost(network, profile)[0]
    assert form.backend == slug
    assert f"edgeward writes no C for {board}: n0: {reason}" in form.why_not
    assert f"(and {more} more)" in form.why_not
    assert form.why_not in cost["peak_ram_bytes"].source
    assert "edgeward writes no C" not in network_cost(network, load_profile("rpi4"))[0]["peak_ram_bytes"].source


def test_one_float_layer_is_named():
    stack = Stack(3, 8, 8).conv(4, precision=(8, 8)).conv(4).conv(4, precision=(8, 8))
    form = device_form(stack.network(), load_profile("cortex-m4"))
    assert (form.backend, form.why_not) == (
        "onnx",
        "edgeward writes no C for cortex-m4: n1: its weights are float: quantise it to at most 8 bits",
    )


@pytest.mark.parametrize("case", ["resnet8", "ds_cnn"])
def test_ranges_change_nothing_of_the_memory_of_these(case):
    network = {"resnet8": resnet8, "ds_cnn": ds_cnn}[case]()
    x = np.random.default_rng(1).standard_normal((2, *network.input_shape())).astype(np.float32)
    known = calibrated(network, {network.inputs[0]: x})
    assert plan(quantize_calibrated(known)).bytes == plan(structure(network)).bytes
    assert peak(known, "cortex-m4") == peak(network, "cortex-m4")
    assert BACKENDS["c"].reasons_against(known) == []


def test_memory_moves_at_the_width_of_the_form():
    # an addition of two maps moves three times its elements in bytes in int8 C
    network = resnet8()
    assert set(device_form(network, load_profile("cortex-m4")).values.values()) == {
        value.elements for value in network.values.values()
    }
