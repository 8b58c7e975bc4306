"""The toolchain caches by content and says what to install; the meter counts exactly and maps nothing foreign."""

import sys
import time

import numpy as np
import pytest

from codegen_zoo import records, zoo
from edgeward.codegen import arena, toolchain
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import ENTRY, emit
from edgeward.codegen.image import read_image
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.meter import count
from edgeward.codegen.toolchain import TARGETS, build
from edgeward.codegen.wasm_run import run_wasm
from edgeward.core.errors import ConfigError, MissingExtra

SMALL = {"one.h": "int one(void);\n", "one.c": '#include "one.h"\nint one(void) { return 1; }\n'}


def test_results_are_cached_by_content(tmp_path):
    root = tmp_path / "c" / "edgeward" / "native"
    first = build(SMALL, "native", exports=("one",), folder=root)
    made = {p.name: p.stat().st_mtime_ns for p in root.iterdir()}
    time.sleep(0.01)
    assert build(SMALL, "native", exports=("one",), folder=root) == first
    assert {p.name: p.stat().st_mtime_ns for p in root.iterdir()} == made
    assert build({**SMALL, "one.h": SMALL["one.h"] + "\n"}, "native", exports=("one",), folder=root) == build(
        {**SMALL, "one.h": SMALL["one.h"] + "\n", "unused.h": "x"}, "native", exports=("one",), folder=root
    )
    assert build(SMALL, "native", exports=("one",), flags=("-DX",), folder=root) != first
    assert not [p for p in root.iterdir() if p.name.startswith("build-")]


def test_complaints_of_the_compiler_are_passed_on(tmp_path):
    root = tmp_path / "c" / "edgeward" / "native"
    with pytest.raises(ConfigError, match="does not compile") as caught:
        build({"bad.c": "int f(void) { return nothing; }\n"}, "native", folder=root)
    assert "nothing" in str(caught.value)
    assert not [p for p in root.iterdir() if p.suffix in (".o", ".so") or p.name.startswith("build-")]


def test_missing_compilers_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    for target in ("native", "wasm32"):
        with pytest.raises(ConfigError, match="edgeward\\[tee-emul\\]"):
            build(SMALL, target)
    with pytest.raises(ConfigError, match="unknown target 'wasm64'"):
        build(SMALL, "wasm64")


def test_ziglang_stands_in_for_the_system_compiler(monkeypatch):
    monkeypatch.setattr(toolchain, "find_compiler", lambda: None)
    assert toolchain.compiler_for("native").command == (sys.executable, "-m", "ziglang", "cc")


def test_folders_of_others_are_refused(tmp_path):
    root = tmp_path / "c" / "edgeward" / "native"
    root.mkdir(parents=True)
    root.chmod(0o777)
    with pytest.raises(ConfigError, match="written by other users"):
        build(SMALL, "native", folder=root)


def test_sources_compile_without_a_warning():
    program = emit(zoo(seed=1), arena.plan(zoo(seed=1)))
    strict = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    for target in TARGETS:
        if target != "executable":
            assert build(program.files, target, exports=(ENTRY,), entry=ENTRY, flags=strict).exists()


def test_module_has_no_imports_and_exports_its_memory_and_entry():
    import wasmtime

    program = emit(zoo(seed=1), arena.plan(zoo(seed=1)))
    module = wasmtime.Module.from_file(wasmtime.Engine(), str(build(program.files, "wasm32", exports=(ENTRY,))))
    assert [i.name for i in module.imports] == []
    assert {e.name for e in module.exports} == {ENTRY, "memory"}


def test_images_start_at_the_entry_and_need_no_library():
    program = emit(zoo(seed=1), arena.plan(zoo(seed=1)))
    for target in ("aarch64", "arm32"):
        image = read_image(build(program.files, target, exports=(ENTRY,), entry=ENTRY))
        assert image.functions[image.entry] == ENTRY
        foreign = {"memcpy", "memset", "memmove", "malloc", "__aeabi_memcpy"}
        assert not foreign & set(image.functions.values())


def linear(features: int) -> IntegerGraph:
    tensors = {
        "weight": np.ones((4, features), np.int8),
        "bias": np.zeros(4, np.int32),
        "multiplier": np.full(4, 2**30, np.int32),
        "shift": np.full(4, 31, np.uint8),
    }
    node = IntegerNode("fc", "linear", ("x",), "y", {"low": -128, "high": 127}, {k: k for k in tensors})
    values = {"x": IntegerValue("x", (features,), 1.0, 0), "y": IntegerValue("y", (4,), 1.0, 0)}
    return IntegerGraph(("x",), ("y",), (node,), values, tensors)


def metered(features):
    graph = linear(features)
    program = emit(graph, arena.plan(graph))
    return program, count(program, [np.ones((1, features), np.int8)], pack(graph))


def test_counts_repeat_and_follow_the_work():
    program, first = metered(1024)
    assert first == metered(1024)[1]
    growth = metered(2048)[1].total - first.total
    assert 4 * 1024 * 0.1 < growth < 4 * 1024 * 0.8
    assert [name for name, _ in first.steps] == list(program.steps) == ["fc"]
    assert 0.9 * first.total < first.steps[0][1] < first.total
    assert first.outputs[0].tolist() == [[127] * 4]


def test_stray_access_is_an_error():
    graph = linear(1024)
    program = emit(graph, arena.plan(graph))
    files = {k: v.replace("1024, (const", "9216, (const") for k, v in program.files.items()}
    assert files != program.files
    wrong = type(program)(files, program.arena_bytes, program.weights_bytes, program.input_bytes, program.output_bytes)
    for target in ("aarch64", "arm32"):
        with pytest.raises(ConfigError, match="does not run"):
            count(wrong, [np.ones((1, 1024), np.int8)], pack(graph), target)


def test_bounds_of_the_kernels():
    """At most 0.8 aarch64 instructions per multiply-add in both matrix paths, at most 0.41 per copied byte."""
    from benchmarks.int8_kernels import copy, layer

    for shape in ((4, 4, 576, 64, 1), (8, 8, 64, 64, 3), (8, 8, 16, 16, 3), (8, 8, 24, 24, 1)):
        graph = layer(*shape)
        program = emit(graph, arena.plan(graph))
        x = np.zeros((1, *graph.values["x"].shape), np.int8)
        work = graph.tensors["weight"].size * shape[0] * shape[1]
        assert count(program, [x], pack(graph)).total / work <= 0.8, shape
    graph = copy(4096)
    program = emit(graph, arena.plan(graph))
    assert count(program, [np.zeros((1, 4096), np.int8)], b"").steps[0][1] / 4096 <= 0.41


def test_fuel_repeats():
    graph = zoo(seed=6, operators=["conv2d", "depthwise"])
    program, weights = emit(graph, arena.plan(graph)), pack(graph)
    first, second = (run_wasm(program, list(records(graph, 1, seed).values()), weights).fuel for seed in (1, 2))
    assert first == second > 0


def test_missing_extras_are_named(monkeypatch):
    graph = linear(16)
    program, x = emit(graph, arena.plan(graph)), np.ones((1, 16), np.int8)
    for module, call in (("unicorn", count), ("wasmtime", run_wasm)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match="tee-emul"):
            call(program, [x], pack(graph))
