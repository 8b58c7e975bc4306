"""The arena: values alive together never overlap, and the plan is near its lower bound; the blob comes back whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen_networks import NAMES, quantised
from codegen_zoo import zoo
from edgeward.codegen import blob
from edgeward.codegen.arena import ALIGNMENT, ArenaPlan, plan
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.scratch import scratch_bytes
from edgeward.core.errors import ModelError


def alive(graph: IntegerGraph, step: int) -> set[str]:
    """Values whose content must be intact while node `step` runs, told from the graph alone."""
    written = {node.output for node in graph.nodes[: step + 1]}
    source = {node.output: node.inputs[0] for node in graph.nodes if node.operator == "reshape"}

    def origin(name: str) -> str:
        return origin(source[name]) if name in source else name

    needed = {origin(name) for name in graph.outputs}
    needed |= {origin(name) for node in graph.nodes[step:] for name in node.inputs}
    needed |= {origin(graph.nodes[step].output)}
    return {name for name in needed if name in written}


def check(graph: IntegerGraph, found: ArenaPlan, scratch) -> None:
    for step, node in enumerate(graph.nodes):
        spans = sorted((found.offsets[n], found.offsets[n] + graph.values[n].bytes) for n in alive(graph, step))
        need = scratch(graph, node)
        assert need <= found.scratch_bytes
        if need:
            spans = sorted([*spans, (found.scratch_offset, found.scratch_offset + need)])
        for (_, end), (start, _) in pairwise(spans):
            assert end <= start, f"{node.name}: {spans}"
        assert all(start >= 0 and end <= found.bytes for start, end in spans)
        assert sum(end - start for start, end in spans) <= found.lower_bound
    assert all(offset % ALIGNMENT == 0 for offset in (*found.offsets.values(), found.scratch_offset))
    assert found.lower_bound <= found.bytes
    aliases = [node for node in graph.nodes if node.operator == "reshape" and node.output in found.offsets]
    assert all(found.offsets[node.output] == found.offsets[node.inputs[0]] for node in aliases)


@st.composite
def graphs(draw):
    """Parts of random graphs of sums, tables and views over vectors of random length; only lifetimes matter here."""
    count = draw(st.integers(1, 14))
    names, nodes = ["x0", "x1"], []
    values = {n: draw(st.integers(1, 200)) for n in names}
    for i in range(count):
        operator = draw(st.sampled_from(["add", "lookup", "reshape"]))
        inputs = tuple(draw(st.sampled_from(names)) for _ in range(2 if operator == "add" else 1))
        size = values[inputs[0]] if operator == "reshape" else draw(st.integers(1, 200))
        attributes = {"shape": (size,)} if operator == "reshape" else {}
        if operator == "add":
            attributes = {"multiplier_a": 1, "multiplier_b": 1, "shift": 1, "low": -128, "high": 127}
        name = f"v{i}"
        values[name] = size
        held = {"table": "t"} if operator == "lookup" else {}
        nodes.append((f"n{i}", operator, inputs, name, attributes, held))
        names.append(name)
    outputs = tuple(draw(st.lists(st.sampled_from(names[2:]), min_size=1, max_size=3, unique=True)))
    return outputs, nodes, values


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(0, 300), st.integers(0, 3))
def test_what_is_alive_together_never_overlaps(parts, most, every):
    outputs, nodes, values = parts
    nodes = tuple(IntegerNode(*fields) for fields in nodes)
    values = {name: IntegerValue(name, (size,), 1.0, 0) for name, size in values.items()}
    graph = IntegerGraph(("x0", "x1"), outputs, nodes, values, {"t": np.zeros(256, np.int8)})

    def scratch(_, node):
        return most if every and int(node.name[1:]) % (every + 1) == 0 else 0

    check(graph, plan(graph, scratch), scratch)


@pytest.mark.parametrize("name", NAMES)
def test_real_networks_stay_near_the_bound(name):
    graph = quantised(name).graph
    found = plan(graph)
    check(graph, found, scratch_bytes)
    assert found.bytes <= 1.05 * found.lower_bound


def test_a_chain_needs_the_largest_pair():
    sizes = [64, 320, 160, 16]
    values = {f"v{i}": IntegerValue(f"v{i}", (s,), 1.0, 0) for i, s in enumerate(sizes)}
    nodes = [IntegerNode(f"n{i}", "lookup", (f"v{i}",), f"v{i + 1}", {}, {"table": "t"}) for i in range(3)]
    found = plan(IntegerGraph(("v0",), ("v3",), tuple(nodes), values, {"t": np.zeros(256, np.int8)}))
    assert (found.bytes, found.lower_bound, found.scratch_bytes) == (480, 480, 0)
    assert "v0" not in found.offsets  # inputs stay where the caller put them


@pytest.mark.parametrize("name", NAMES)
def test_the_blob_holds_every_tensor(name):
    graph = quantised(name).graph
    packed = blob.pack(graph)
    assert len(packed) == blob.blob_bytes(graph)
    assert len(packed) % ALIGNMENT == 0
    back = blob.unpack(graph, packed)
    assert list(back) == list(graph.tensors)
    for key, tensor in graph.tensors.items():
        assert back[key].dtype == tensor.dtype
        np.testing.assert_array_equal(back[key], tensor)


def test_the_blob_is_little_endian_aligned_and_disjoint():
    graph = zoo(3, ("conv2d", "lookup"))
    packed, places = blob.pack(graph), blob.layout(graph)
    spans = sorted((offset, offset + size) for offset, size in places.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(offset % ALIGNMENT == 0 for offset, _ in places.values())
    key = next(k for k in graph.tensors if k.endswith("multiplier"))
    offset, size = places[key]
    words = [int.from_bytes(packed[i : i + 4], "little", signed=True) for i in range(offset, offset + size, 4)]
    assert words == graph.tensors[key].tolist()
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(packed[i] == 0 for i in set(range(len(packed))) - covered)


def test_a_blob_of_another_length_is_refused():
    graph = quantised("lenet").graph
    packed = blob.pack(graph)
    for wrong in (b"", packed[:-1], packed + b"\0"):
        with pytest.raises(ModelError, match="weights blob"):
            blob.unpack(graph, wrong)
