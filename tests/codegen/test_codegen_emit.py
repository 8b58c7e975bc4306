"""Emission: whole networks with one hash on every target, deterministic text, nothing secret in it, misfits refused."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen_networks
from codegen_zoo import OPERATORS, records, zoo
from edgeward.codegen import arena, scratch
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import emit
from edgeward.codegen.integer import INTEGER_OPERATORS, IntegerGraph
from edgeward.codegen.meter import count
from edgeward.codegen.native_run import NativeProgram
from edgeward.codegen.reference import run
from edgeward.codegen.scratch import scratch_bytes
from edgeward.codegen.statements import STATEMENTS
from edgeward.codegen.wasm_run import run_wasm
from edgeward.core.errors import ConfigError, DataError, ModelError


def digest(outputs):
    return hashlib.sha256(b"".join(np.ascontiguousarray(y).tobytes() for y in outputs)).hexdigest()


@pytest.mark.parametrize("name", codegen_networks.NAMES)
def test_whole_networks_have_one_hash_on_every_target(name, record_property):
    made = codegen_networks.quantised(name, argmax=name in ("lenet", "monitor"))
    graph, inputs = made.graph, made.inputs
    program, weights = emit(graph, arena.plan(graph)), pack(graph)
    native = NativeProgram(program, weights)(*inputs.values())
    right = run(graph, inputs)
    assert digest(native) == digest([right[k].reshape(len(right[k]), -1) for k in graph.outputs])
    one = [x[:1] for x in inputs.values()]
    hashes = {
        "native": digest([y[:1] for y in native]),
        "wasm32": digest(run_wasm(program, one, weights).outputs),
        "aarch64": digest(count(program, one, weights).outputs),
        "arm32": digest(count(program, one, weights, "arm32").outputs),
    }
    record_property("sha256", hashes["native"])
    assert len(set(hashes.values())) == 1, hashes


def test_every_operator_has_a_statement():
    assert set(STATEMENTS) | {"reshape"} == set(INTEGER_OPERATORS) == set(OPERATORS)


def test_text_depends_on_the_structure_alone():
    graph = zoo(seed=1)
    other = {k: t if t.dtype == np.uint8 else t[::-1].copy() for k, t in graph.tensors.items()}
    swapped = IntegerGraph(graph.inputs, graph.outputs, graph.nodes, graph.values, other)
    first, second = emit(graph, arena.plan(graph)), emit(swapped, arena.plan(swapped))
    assert first == second == emit(graph, arena.plan(graph))
    assert pack(graph) != pack(swapped)


def test_names_cannot_leave_their_comment():
    graph = zoo(seed=1, operators=["lookup"])
    hostile = replace(graph.nodes[0], name='*/ int evil(void) { return 1; } /* "\n#include <x>')
    emitted = emit(
        IntegerGraph(graph.inputs, graph.outputs, (hostile,), graph.values, graph.tensors), arena.plan(graph)
    )
    assert "evil(void)" not in emitted.files["net.c"]
    assert "include <x>" not in emitted.files["net.c"]


def test_sources_call_nothing_from_outside():
    """No allocation, no library header beyond the freestanding two, no word of where the code will run."""
    program = emit(zoo(seed=1), arena.plan(zoo(seed=1)))
    for name, text in program.files.items():
        assert not re.search(r"\b(malloc|calloc|free|printf|abort)\b", text), name
        system = set(re.findall(r"#include <([^>]+)>", text))
        assert system <= {"stddef.h", "stdint.h", "arm_neon.h", "immintrin.h", "wasm_simd128.h"}, name
        assert not re.search(r"\b(TEE|TA_|enclave|secure|trusted)", text), name


def test_scratch_counts_the_rows_that_the_kernel_lays_out():
    text = emit(zoo(seed=1), arena.plan(zoo(seed=1))).files["ew_conv.c"]
    assert re.findall(r"#define EW_PIXELS (\d+)", text) == [str(scratch.PIXELS)]


def test_header_states_the_sizes():
    graph = zoo(seed=2, operators=["add", "linear"])
    program = emit(graph, arena.plan(graph))
    header = program.files["net.h"]
    assert f"#define EDGEWARD_NET_WEIGHTS_BYTES {len(pack(graph))}\n" in header
    assert f"#define EDGEWARD_NET_ARENA_BYTES {program.arena_bytes}\n" in header
    for i, size in enumerate(program.input_bytes):
        assert f"#define EDGEWARD_NET_INPUT_BYTES_{i} {size}\n" in header
    assert program.output_bytes == tuple(v.bytes for v in graph.value_of(graph.outputs))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_graphs_pass_the_check(seed):
    graph = zoo(seed)
    emit(graph, arena.plan(graph))


def broken(graph, **changes):
    node = replace(graph.nodes[0], **changes)
    return IntegerGraph(graph.inputs, graph.outputs, (node,), graph.values, graph.tensors)


def test_graphs_that_do_not_fit_are_refused():
    conv = zoo(seed=9, operators=["conv2d"])
    node, weight = conv.nodes[0], conv.nodes[0].tensors["weight"]

    def with_tensor(role, tensor):
        tensors = {**conv.tensors, node.tensors[role]: tensor}
        return IntegerGraph(conv.inputs, conv.outputs, conv.nodes, conv.values, tensors)

    right = conv.tensors
    cases = {
        "expected": broken(conv, attributes={**node.attributes, "stride": (9, 1), "padding": (9, 9, 9, 9)}),
        "does not fit": with_tensor("weight", right[weight][..., :-1].repeat(3, -1).copy()),
        "-128": with_tensor("weight", np.full_like(right[weight], -128)),
        "shift outside": with_tensor("shift", np.zeros_like(right[node.tensors["shift"]])),
        "bias": with_tensor("bias", right[node.tensors["bias"]][:-1]),
        "exceed 32 bits": with_tensor("bias", np.full_like(right[node.tensors["bias"]], 2**31 - 1)),
        "another type": with_tensor("bias", right[node.tensors["bias"]].astype(np.int64)),
        "outside int8": broken(conv, attributes={**node.attributes, "high": 300}),
        "wrong form": broken(conv, attributes={**node.attributes, "stride": (0, 1)}),
    }
    for words, graph in cases.items():
        with pytest.raises(ModelError, match=words):
            emit(graph, arena.plan(conv))


def test_all_problems_come_in_one_error():
    graph = zoo(seed=4, operators=["add", "linear"])
    values = {k: replace(v, shape=(7, 7, 7)) if k in graph.outputs else v for k, v in graph.values.items()}
    wrong = IntegerGraph(graph.inputs, graph.outputs, graph.nodes, values, graph.tensors)
    with pytest.raises(ModelError) as caught:
        emit(wrong, arena.plan(wrong))
    assert all(node.name in str(caught.value) for node in graph.nodes)


def test_plans_that_do_not_fit_are_refused():
    graph = codegen_networks.quantised("lenet").graph
    plan = arena.plan(graph)
    assert max(scratch_bytes(graph, node) for node in graph.nodes) > 0
    first = next(iter(plan.offsets))
    for wrong, words in (
        (replace(plan, bytes=plan.bytes // 2), "lies at"),
        (replace(plan, offsets={k: v for k, v in plan.offsets.items() if k != first}), "no place"),
        (replace(plan, scratch_bytes=0), "scratch"),
        (replace(plan, scratch_offset=plan.bytes), "scratch"),
    ):
        with pytest.raises(ModelError, match=words):
            emit(graph, wrong)


def test_records_and_weights_that_do_not_fit_are_refused():
    graph = zoo(seed=2, operators=["add"])
    program, weights = emit(graph, arena.plan(graph)), pack(graph)
    native = NativeProgram(program, weights)
    a, b = records(graph, 3, 1).values()
    for wrong in ((a,), (a, b[:2]), (a.astype(np.int16), b), (a[..., :-1], b)):
        with pytest.raises(DataError, match="do not fit"):
            native(*wrong)
    with pytest.raises(ConfigError, match="weights"):
        NativeProgram(program, weights + b"0")(a, b)
    assert native(a[:0], b[:0])[0].shape == (0, program.output_bytes[0])
