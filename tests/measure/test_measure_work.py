"""Counts of multiply-accumulates and what is made of them, against published and hand-computed numbers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measure_networks import Stack, autoencoder, ds_cnn, lenet, mobilenet_v1_quarter, mobilenet_v2, resnet8

from edgeward.graph.network import Network, Node, Value
from edgeward.measure.schedule import calls, value_bytes
from edgeward.measure.weights import Weights, node_weights
from edgeward.measure.work import Work, ace, cpu64_classic, cpu64_lane, node_work, total_macs


def macs(network):
    return total_macs(node_work(network, node) for node in network.nodes)


def weights(network):
    return sum(node_weights(network).values(), Weights())


def test_lenet_by_hand():
    network = lenet()
    rows = [node_work(network, node).macs for node in network.nodes if node.tensors]
    assert rows == [6 * 28 * 28 * 25, 16 * 10 * 10 * 6 * 25, 400 * 120, 120 * 84, 84 * 10]
    assert macs(network) == 416_520
    assert weights(network).parameters == 61_706
    assert weights(network).stored_bytes == 4 * 61_706


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (resnet8(), 12_501_632),
        (mobilenet_v1_quarter(), 7_489_664),
        (ds_cnn(), 2_656_768),
        (autoencoder(), 264_192),
        (mobilenet_v2(), 300_774_272),
    ],
)
def test_published_networks(network, count):
    assert macs(network) == count


def test_mobilenet_v2_has_the_published_parameters():
    assert weights(mobilenet_v2()).parameters == 3_504_872


# width, MMAC at 1 x 1, 4 x 4 and 8 x 8 bits, ACE / 1e9, lane and classic CPU64 / 1e6 of PokeBNN
POKEBNN = [
    (0.5, 905.6, 0.91, 7.65, 1.41, 15.2, 22.7),
    (0.75, 2032.7, 2.04, 8.16, 2.59, 32.9, 42.0),
    (1.0, 3609.5, 3.63, 8.67, 4.22, 57.7, 68.7),
    (1.4, 7037.2, 7.08, 9.49, 7.76, 111.6, 126.5),
    (2.0, 14412.2, 14.53, 10.72, 15.33, 227.4, 250.4),
]


@pytest.mark.parametrize(("width", "one", "four", "eight", "effort", "lane", "classic"), POKEBNN)
def test_pokebnn_table(width, one, four, eight, effort, lane, classic):
    work = [Work(round(one * 1e6), 1, 1), Work(round(four * 1e6), 4, 4), Work(round(eight * 1e6), 8, 8)]
    assert ace(work) / 1e9 == pytest.approx(effort, abs=0.006)
    assert cpu64_lane(work) / 1e6 == pytest.approx(lane, abs=0.06)
    assert cpu64_classic(work) / 1e6 == pytest.approx(classic, abs=0.06)


def test_one_mac_counts_1024_64_or_1():
    assert [ace([Work(1, bits, bits)]) for bits in (32, 8, 1)] == [1024, 64, 1]


def test_mobilenet_v2_effort_at_int8_and_float32():
    network = mobilenet_v2()
    work = [node_work(network, node) for node in network.nodes]
    assert ace(work) == 1024 * 300_774_272
    assert ace([Work(w.macs, 8, 8) for w in work]) / 1e9 == pytest.approx(19.2, abs=0.06)


WORK = st.builds(Work, st.integers(0, 10**9), st.integers(1, 32), st.integers(1, 32))


@given(st.lists(WORK, max_size=6), st.lists(WORK, max_size=6))
def test_counts_add_over_layers(first, second):
    for count in (total_macs, ace, cpu64_classic, cpu64_lane):
        assert count(first + second) == pytest.approx(count(first) + count(second), rel=1e-12)


@given(WORK, st.integers(0, 31), st.integers(0, 31))
def test_counts_grow_with_the_bits(work, more_weight, more_activation):
    wider = Work(work.macs, min(32, work.weight_bits + more_weight), min(32, work.activation_bits + more_activation))
    for count in (ace, cpu64_classic, cpu64_lane):
        assert count([work]) <= count([wider])


def test_operator_classes():
    network = Stack(4, 8, 8).conv(8).depthwise().conv(8, 1).conv(8, groups=2).flatten().linear(3).network()
    found = [node_work(network, node).operator_class for node in network.nodes if node.tensors]
    assert found == ["conv", "depthwise", "pointwise", "conv", "linear"]
    tokens = Stack(16, 32).linear(64).network()
    assert node_work(tokens, tokens.nodes[0]).operator_class == "pointwise"


def product(operator, **shapes):
    values = {name: Value(name, shape) for name, shape in shapes.items()}
    inputs = tuple(name for name in shapes if name != "out")
    attributes = {"scale": 0.5} if operator == "attention" else {}
    return Network(inputs, ("out",), (Node("p", "p", operator, inputs, "out", attributes),), values, {})


def test_matmul_and_attention():
    assert macs(product("matmul", a=(2, 5, 7), b=(2, 7, 3), out=(2, 5, 3))) == 2 * 5 * 7 * 3
    # 2 heads, 5 queries, 6 keys of width 4, values of width 3
    attention = product("attention", q=(2, 5, 4), k=(2, 6, 4), v=(2, 6, 3), out=(2, 5, 3))
    assert macs(attention) == 2 * 5 * 6 * 4 + 2 * 5 * 6 * 3
    assert ace([node_work(attention, attention.nodes[0])]) == 1024 * macs(attention)


def test_precisions():
    stack = Stack(8, 4, 4).conv(8, precision="binary").conv(8, precision=(4, 8)).conv(8, precision=(8, 32)).conv(8)
    network = stack.network()
    work = [node_work(network, node) for node in network.nodes]
    assert [(w.weight_bits, w.activation_bits) for w in work] == [(1, 1), (4, 8), (8, 32), (32, 32)]
    assert [w.precision for w in work] == ["binary", "int8", "float32", "float32"]


def test_stored_bytes_by_width():
    stack = Stack(8, 4, 4).conv(16, precision="binary").conv(16, precision=(4, 8)).conv(16)
    binary, quantized, plain = node_weights(stack.network()).values()
    assert (binary.binary_weights, binary.binary_weight_bytes) == (16 * 72, 16 * 72 // 8)
    assert binary.stored_bytes == 16 * 72 // 8 + 4 * 16
    assert binary.parameters == 16 * 72 + 16
    assert quantized.stored_bytes == 16 * 144 // 2 + 4 * 16 + 4 + 4
    assert quantized.parameters == 16 * 144
    assert plain.stored_bytes == 4 * 16 * 144
    assert plain.binary_weights == quantized.binary_weights == 0


def test_nonzeros_are_those_of_the_stored_weights():
    network = Stack(4).linear(2, bias=False, precision=(8, 8)).linear(2, bias=False).network()
    small, zero = network.nodes
    half = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    weights = {small.tensors["weight"]: torch.full((2, 4), 0.01), zero.tensors["weight"]: half}
    network = replace(network, tensors={**network.tensors, **weights})
    found = node_weights(network)
    assert found[small.name].nonzeros == 0  # 0.01 rounds to 0 at a scale of 0.1
    assert (found[zero.name].parameters, found[zero.name].nonzeros) == (4, 2)


def test_shared_tensors_count_once():
    stack = Stack(4).linear(4, bias=False).linear(4, bias=False)
    first, second = stack.nodes
    tied = Network(
        ("x",), (stack.last,), (first, Node(**{**vars(second), "tensors": first.tensors})), stack.values, stack.tensors
    )
    assert weights(tied).parameters == 16
    assert macs(tied) == 32


def test_calls():
    stack = (
        Stack(4, 8, 8).conv(4).norm().same("relu").max_pool().same("relu").flatten().linear(2).same("softmax", axis=-1)
    )
    network = stack.network()
    assert list(calls(network).values()) == [
        "compute", "fused", "fused", "memory", "memory", "alias", "compute", "memory",
    ]  # fmt: skip


def test_a_value_with_two_readers_is_not_fused_away():
    stack = Stack(4, 8, 8).conv(4)
    start = stack.last
    network = stack.same("relu").conv(4).add(start).network()
    assert list(calls(network).values()) == ["compute", "memory", "compute", "memory"]


def test_value_bytes_keep_codes_only_where_every_reader_agrees():
    stack = Stack(4, 8, 8).conv(4, precision=(8, 8)).same("relu").max_pool().conv(8, precision=(8, 8))
    start = stack.last
    network = stack.conv(8, precision=(4, 4)).add(start).global_pool().flatten().linear(2, precision=(8, 8)).network()
    sizes = list(value_bytes(network).values())[::-1]
    # input, conv, relu, pool as codes; a value the sum reads too, the sum and the pooling's input as float32
    assert sizes[:4] == [256, 256, 256, 64]
    assert sizes[4:7] == [4 * 128, 4 * 128, 4 * 128]
    assert sizes[7:] == [8, 8, 4 * 2]


def test_value_bytes_of_binary_layers():
    stack = Stack(3, 8, 8).conv(16).norm().conv(16, precision="binary").max_pool().norm().conv(16, precision="binary")
    sizes = list(value_bytes(stack.network()).values())[::-1]
    assert sizes[0] == 4 * 3 * 64
    assert sizes[1:3] == [16 * 64 // 8] * 2  # the normalisation folds into thresholds of the convolution before it
    assert sizes[3:5] == [4 * 16 * 64, 4 * 16 * 16]  # but not through the pooling
    assert sizes[5] == 16 * 16 // 8
    assert sizes[6] == 4 * 16 * 16


def test_the_input_of_a_binary_network_takes_a_byte_per_element():
    network = Stack(100).linear(33, precision="binary").linear(3, precision="binary").network()
    assert list(value_bytes(network).values())[::-1] == [100, 8, 12]  # 33 bits fill two words
