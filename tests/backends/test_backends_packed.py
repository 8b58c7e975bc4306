"""The packed format against files of foreign origin: one `ModelError`, or a network that runs within its bounds."""

import json
import resource

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from torch import nn

from backends.operator_table import BinaryConv2d, BinaryLinear, QuantizedLinear
from edgeward.backends.cleartext.bitpack import pack_codes, unpack_codes
from edgeward.backends.cleartext.container import Malformed, read_container, write_container
from edgeward.backends.cleartext.onnx_lowering import to_onnx, to_onnx_bytes
from edgeward.backends.cleartext.onnxruntime import OnnxExecutable
from edgeward.backends.cleartext.packed import PackedExecutable
from edgeward.backends.cleartext.packed_lowering import to_packed
from edgeward.backends.cleartext.storage import storage_report
from edgeward.core.errors import EdgewardError, ModelError
from edgeward.graph import capture


def _artefact():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.MaxPool2d(2),
            BinaryConv2d(4, 6, 1, 1),
            nn.ReLU(),
            nn.Flatten(),
            QuantizedLinear(54, 8, 3, 8),
            nn.Softmax(dim=1),
            BinaryLinear(8, 3, bias=True),
        )
    return to_packed(capture(module.eval(), (1, 6, 6)))


ARTEFACT = _artefact()
ONNX = to_onnx_bytes(capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), (4,)))
X = np.random.default_rng(0).standard_normal((2, 1, 6, 6)).astype(np.float32)


def loads_or_refuses(data):
    """Return whether the file runs; anything but a `ModelError` is a failure of the parser."""
    try:
        executable = PackedExecutable(data)
    except ModelError:
        return False
    found = executable.run(X) if executable.plan.input_shape == (1, 6, 6) else None
    assert found is None or found.shape[0] == 2
    return True


def header(data=ARTEFACT):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewritten(edit, data=ARTEFACT):
    """Return the file with its graph changed by `edit`."""
    plain, body = header(data)
    graph = json.loads(plain["__metadata__"]["graph"])
    edited = edit(graph)
    graph = edited if isinstance(edited, list) else graph
    plain["__metadata__"]["graph"] = json.dumps(graph)
    text = json.dumps(plain).encode()
    return len(text).to_bytes(8, "little") + text + body


def node(graph, operator):
    return next(node for node in graph["nodes"] if node["operator"] == operator)


def test_the_untouched_file_runs():
    assert loads_or_refuses(ARTEFACT)
    assert loads_or_refuses(rewritten(lambda graph: None))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_cut_or_random_files(data):
    mutated = bytearray(ARTEFACT)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    loads_or_refuses(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))
    loads_or_refuses(bytes(mutated))
    loads_or_refuses(data.draw(st.binary(max_size=64)))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.lists(st.integers(-1, 5) | st.integers(), max_size=4),
    st.just({}),
)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_field_of_the_graph_replaced(data):
    def edit(graph):
        place, path = graph, []
        while isinstance(place, dict | list) and place and (not path or data.draw(st.integers(0, 3))):
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            path.append(data.draw(st.sampled_from(list(keys))))
            parent, place = place, place[path[-1]]
        parent[path[-1]] = data.draw(JUNK)

    loads_or_refuses(rewritten(edit))


def set_in(operator, part, **changes):
    return lambda graph: node(graph, operator).setdefault(part, {}).update(changes)


def set_part(operator, part, value):
    return lambda graph: node(graph, operator).update({part: value})


@pytest.mark.parametrize(
    "edit",
    [
        set_part("conv2d", "operator", "system"),
        set_part("conv2d", "operator", "batch_norm"),
        set_part("conv2d", "inputs", [1]),
        set_part("conv2d", "inputs", [-1]),
        set_part("conv2d", "inputs", [True]),
        set_part("conv2d", "shape", [4, 6, 7]),
        set_part("conv2d", "more", 1),
        set_in("conv2d", "attributes", stride=[0, 1]),
        set_in("conv2d", "attributes", padding=[2**24, 2**24]),
        set_in("conv2d", "attributes", dilation=[9, 9]),
        set_in("conv2d", "attributes", groups=0),
        set_in("conv2d", "attributes", other=1),
        set_in("max_pool2d", "attributes", kernel=[2**20, 2**20]),
        set_in("max_pool2d", "attributes", padding=[2, 2]),
        set_in("binary_conv2d", "attributes", unit_scale=True),
        set_in("binary_conv2d", "tensors", weight=["t0", 32, [4, 1, 3, 3]]),
        set_in("quantized_linear", "attributes", weight_bits=8),
        set_in("quantized_linear", "attributes", activation_bits=17),
        set_in("quantized_linear", "tensors", weight=["t0", 3, [8, 54]]),
        set_in("softmax", "attributes", axis=1),
        lambda graph: graph.update(input=[2**24, 2**24]),
        lambda graph: graph.update(input=[0]),
        lambda graph: graph.update(outputs=[99]),
        lambda graph: graph.update(outputs=[]),
        lambda graph: graph.update(nodes={}),
        lambda graph: graph["nodes"].insert(0, 7),
        lambda graph: [],
    ],
)
def test_each_broken_field_is_refused(edit):
    with pytest.raises(ModelError, match="not a packed network"):
        PackedExecutable(rewritten(edit))


def test_all_unknown_operators_are_named_at_once():
    def edit(graph):
        graph["nodes"][0]["operator"], graph["nodes"][2]["operator"] = "fft", "dot"

    with pytest.raises(ModelError, match="unknown operators: dot, fft"):
        PackedExecutable(rewritten(edit))


def test_a_chain_that_grows_beyond_memory_is_refused_before_it_runs():
    """Doubling concatenations from a tiny file: refused without allocating."""
    nodes = [
        {"operator": "concat", "inputs": [i, i], "shape": [2 ** (i + 1)], "attributes": {"axis": 0}} for i in range(60)
    ]
    for depth in (24, 27, 60):
        graph = json.dumps({"input": [1], "nodes": nodes[:depth], "outputs": [depth]})
        data = write_container({}, {"format": "edgeward-packed", "version": "1", "graph": graph})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if depth > 24:
            with pytest.raises(ModelError):
                PackedExecutable(data)
        else:
            assert PackedExecutable(data).plan.shape(depth) == (2**24,)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_many_live_values_are_refused():
    """Each value is small enough, all of them together are not."""
    nodes = [{"operator": "relu", "inputs": [0], "shape": [2**24]} for _ in range(40)]
    graph = json.dumps({"input": [2**24], "nodes": nodes, "outputs": list(range(41))})
    with pytest.raises(ModelError, match="at once"):
        PackedExecutable(write_container({}, {"format": "edgeward-packed", "version": "1", "graph": graph}))


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", '{"a":1,"a":2}', "1" * 5000, '"\\ud800"', "{"])
def test_hostile_json(text):
    data = write_container({}, {"format": "edgeward-packed", "version": "1", "graph": text})
    with pytest.raises(ModelError):
        PackedExecutable(data)


def test_container_reads_and_writes_what_the_library_does():
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.uint8)}
    found, metadata = read_container(save(tensors, {"k": "v"}))
    assert metadata == {"k": "v"}
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in tensors.items()}
    for entry in (
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**39, 2**39], "data_offsets": [0, 4]},
        {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    ):
        text = json.dumps({"x": entry}).encode()
        with pytest.raises(Malformed):
            read_container(len(text).to_bytes(8, "little") + text + bytes(4))


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=70))))
def test_codes_survive_packing(drawn):
    bits, codes = drawn
    packed = pack_codes(np.array(codes, np.uint8), bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack_codes(packed, bits, len(codes)).tolist() == codes


def test_shared_weights_are_stored_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(50, 50)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    report = storage_report(capture(Twice().eval(), (50,)))
    assert report.tensor_bytes == 4 * (50 * 50 + 50)


def test_exactness_is_declared():
    assert not PackedExecutable(ARTEFACT).exact
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert PackedExecutable(to_packed(capture(module.eval(), (3,)))).exact


def test_onnx_files_that_point_outside_are_refused(tmp_path):
    model = to_onnx(capture(nn.Linear(40, 40).eval(), (40,)))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(ModelError, match="never writes"):
        OnnxExecutable(model.SerializeToString())
    model = to_onnx(capture(nn.Linear(4, 4).eval(), (4,)))
    model.graph.node[0].domain = "com.example"
    with pytest.raises(ModelError, match="never writes"):
        OnnxExecutable(model.SerializeToString())


# The parser is ONNX Runtime's native code: the same mutations every time, this is no search for its bugs.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_mutated_onnx_files_give_one_error_or_run(data):
    mutated = bytearray(ONNX)
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        OnnxExecutable(bytes(mutated)).run(np.zeros((1, 4), np.float32))
    except EdgewardError:
        return
