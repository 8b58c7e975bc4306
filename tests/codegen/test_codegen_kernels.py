"""The kernels on every target give the bits of the integer reference, and touch nothing outside their memory."""

import ctypes
import platform
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen_zoo import OPERATORS, records, zoo
from edgeward.codegen import arena
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import ENTRY, emit
from edgeward.codegen.meter import count
from edgeward.codegen.native_run import NativeProgram
from edgeward.codegen.reference import run
from edgeward.codegen.toolchain import SANITIZERS, build
from edgeward.codegen.wasm_run import run_wasm
from patience import PATIENCE

# Reads the weights and the inputs from the files of its command line into blocks of exactly their size, and writes the
# outputs, so that the address checks see every byte beyond an end.
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include "net.h"
static int8_t *block(size_t n, const char *path) {
  int8_t *p = malloc(n ? n : 1);
  FILE *f = path ? fopen(path, "rb") : 0;
  if (!p || (path && (!f || fread(p, 1, n, f) != n))) exit(3);
  if (f) fclose(f);
  return p;
}
int main(int n, char **names) {
  const size_t in[] = EDGEWARD_NET_INPUT_SIZES, out[] = EDGEWARD_NET_OUTPUT_SIZES;
  const int8_t *inputs[EDGEWARD_NET_INPUTS];
  int8_t *outputs[EDGEWARD_NET_OUTPUTS];
  if (n != 3 + EDGEWARD_NET_INPUTS) return 2;
  uint8_t *weights = (uint8_t *)block(EDGEWARD_NET_WEIGHTS_BYTES, names[1]);
  for (int i = 0; i < EDGEWARD_NET_INPUTS; i++) inputs[i] = block(in[i], names[3 + i]);
  for (int i = 0; i < EDGEWARD_NET_OUTPUTS; i++) outputs[i] = block(out[i], 0);
  uint8_t *arena = (uint8_t *)block(EDGEWARD_NET_ARENA_BYTES, 0);
  int status = edgeward_net_run(weights, inputs, outputs, arena);
  FILE *f = fopen(names[2], "wb");
  if (!f) return 4;
  for (int i = 0; i < EDGEWARD_NET_OUTPUTS; i++) fwrite(outputs[i], 1, out[i], f);
  fclose(f);
  for (int i = 0; i < EDGEWARD_NET_INPUTS; i++) free((void *)inputs[i]);
  for (int i = 0; i < EDGEWARD_NET_OUTPUTS; i++) free(outputs[i]);
  free(weights), free(arena);
  return status;
}
"""


def made(graph):
    return emit(graph, arena.plan(graph)), pack(graph)


def expected(graph, inputs):
    found = run(graph, inputs)
    return [found[name].reshape(len(found[name]), -1) for name in graph.outputs]


def wrong(graph, outputs, right):
    return [
        n.operator
        for n, ours, theirs in zip(graph.nodes, outputs, right, strict=True)
        if not np.array_equal(ours, theirs)
    ]


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_on_every_target(operator):
    graph = zoo(seed=11, operators=[operator], rounds=6)
    program, weights = made(graph)
    inputs = records(graph, 3, seed=1)
    right = expected(graph, inputs)
    assert not wrong(graph, NativeProgram(program, weights)(*inputs.values()), right)
    for record in range(3):
        one = [x[record : record + 1] for x in inputs.values()]
        single = [y[record : record + 1] for y in right]
        assert not wrong(graph, run_wasm(program, one, weights).outputs, single), "wasm32"
        assert not wrong(graph, count(program, one, weights).outputs, single), "aarch64"
        assert not wrong(graph, count(program, one, weights, "arm32").outputs, single), "arm32"


@settings(max_examples=12, deadline=None, derandomize=True)  # the same programs again: they are cached
@given(st.integers(0, 2**32 - 1))
def test_random_shapes_equal_the_reference(seed):
    graph = zoo(seed, rounds=3)
    program, weights = made(graph)
    inputs = records(graph, 4, seed)
    assert not wrong(graph, NativeProgram(program, weights)(*inputs.values()), expected(graph, inputs))


@pytest.mark.parametrize("flags", [("-DEW_PLAIN",), ("-mavx2", "-mno-avx512f"), ("-O0",)])
def test_every_form_of_the_kernels_gives_the_same_bits(flags):
    graph = zoo(seed=5, rounds=4)
    program, weights = made(graph)
    inputs = records(graph, 1, seed=2)
    right = expected(graph, inputs)
    if flags[0] == "-DEW_PLAIN":
        one = list(inputs.values())
        assert not wrong(graph, count(program, one, weights, flags=flags).outputs, right)
        assert not wrong(graph, count(program, one, weights, "arm32", flags=flags).outputs, right)
    if flags[0].startswith("-mavx") and platform.machine() != "x86_64":
        pytest.skip("vectors of another processor")
    assert not wrong(graph, NativeProgram(program, weights, flags=flags)(*inputs.values()), right)


def sanitised(program, inputs, weights, folder, flags=()):
    """Run the program with address and undefined-behaviour checks; return its outputs, concatenated."""
    binary = build({**program.files, "main.c": DRIVER}, "executable", flags=(*SANITIZERS, *flags))
    names = [folder / "weights", folder / "out", *(folder / f"in{i}" for i in range(len(inputs)))]
    names[0].write_bytes(weights)
    for name, array in zip(names[2:], inputs, strict=True):
        name.write_bytes(array.tobytes())
    done = subprocess.run([binary, *names], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return np.frombuffer(names[1].read_bytes(), np.int8)


@pytest.mark.parametrize("flags", [(), ("-DEW_PLAIN",)])
def test_sanitised_build_is_clean(flags, tmp_path):
    graph = zoo(seed=23, rounds=5)
    program, weights = made(graph)
    inputs = records(graph, 1, seed=3)
    found = sanitised(program, inputs.values(), weights, tmp_path, flags)
    assert np.array_equal(found, np.concatenate([y[0] for y in expected(graph, inputs)]))


def test_any_weights_stay_inside_and_defined(tmp_path):
    """Whatever the blob holds, no address depends on it and no step is undefined."""
    graph = zoo(seed=29, rounds=6)
    program, weights = made(graph)
    draws = np.random.default_rng(0)
    for content in (draws.bytes(len(weights)), b"\xff" * len(weights), bytes(len(weights)), b"\x80" * len(weights)):
        inputs = records(graph, 1, seed=4)
        sanitised(program, inputs.values(), content, tmp_path)


def test_sanitiser_sees_a_missing_byte(tmp_path):
    """The check above can fail: with a blob declared one block short, the run is stopped."""
    graph = zoo(seed=3, operators=["linear"])
    program, weights = made(graph)
    files = {
        **program.files,
        "net.h": program.files["net.h"].replace(f"WEIGHTS_BYTES {len(weights)}", "WEIGHTS_BYTES 1"),
    }
    binary = build({**files, "main.c": DRIVER}, "executable", flags=SANITIZERS)
    (tmp_path / "w").write_bytes(weights)
    (tmp_path / "x").write_bytes(next(iter(records(graph, 1, 1).values())).tobytes())
    done = subprocess.run([binary, tmp_path / "w", tmp_path / "o", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_pointers_need_no_alignment():
    graph = zoo(seed=31, rounds=2)
    program, weights = made(graph)
    inputs = records(graph, 1, seed=5)
    library = ctypes.CDLL(str(build(program.files, "native", exports=(ENTRY,))))
    keep = []

    def odd(content: bytes) -> int:
        room = np.zeros(len(content) + 17, np.uint8)
        start = (1 - room.ctypes.data) % 16
        room[start : start + len(content)] = np.frombuffer(content, np.uint8)
        keep.append(room)
        return room.ctypes.data + start

    sources = (ctypes.c_void_p * len(inputs))(*[odd(x.tobytes()) for x in inputs.values()])
    targets = (ctypes.c_void_p * len(program.output_bytes))(*[odd(bytes(n)) for n in program.output_bytes])
    void = ctypes.c_void_p
    status = library[ENTRY](void(odd(weights)), sources, targets, void(odd(bytes(program.arena_bytes))))
    assert status == 0
    found = [ctypes.string_at(a, n) for a, n in zip(targets, program.output_bytes, strict=True)]
    assert found == [y[0].tobytes() for y in expected(graph, inputs)]


def test_null_pointers_are_refused():
    graph = zoo(seed=3, operators=["linear"])
    program, weights = made(graph)
    library = ctypes.CDLL(str(build(program.files, "native", exports=(ENTRY,))))
    one = (ctypes.c_void_p * 1)(None)
    room = ctypes.create_string_buffer(max(program.arena_bytes, 1))
    blob = ctypes.create_string_buffer(weights)
    assert library[ENTRY](None, one, one, room) == 1
    assert library[ENTRY](blob, None, one, room) == 1
    assert library[ENTRY](blob, one, one, None) == 1
    assert library[ENTRY](blob, one, one, room) == 1
