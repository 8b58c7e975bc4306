"""The WebAssembly tier alone: fuel, memory, stack and imports."""

from dataclasses import replace

import pytest

from backends.tee.tee_stub import stub_program
from backends.tee.tee_worlds import DIGEST, KEY, WEIGHTS, application, records
from edgeward.backends.tee.sealing import seal
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.backends.tee.world import (
    SecureMemoryExceeded,
    SecureWorldDead,
)


def test_wasm_fuel_is_the_same_in_every_run():
    def fuel():
        with WasmWorld(KEY).open_session(application()) as session:
            session.load(seal(WEIGHTS, KEY, DIGEST, 5))
            session.infer([t[0] for t in records(1)])
            return session.meter.fuel

    assert fuel() == fuel() > 0


def test_wasm_out_of_fuel_is_a_dead_target():
    with WasmWorld(KEY, fuel=50).open_session(application()) as session:
        with pytest.raises(SecureWorldDead, match="50 units of fuel"):
            session.noop()
        with pytest.raises(SecureWorldDead, match="fuel"):
            session.noop()


def test_wasm_memory_cannot_grow_beyond_the_budget():
    import wasmtime

    with WasmWorld(KEY).open_session(application(memory_budget=1 << 16)) as session:
        channel = session._channel
        with pytest.raises(wasmtime.WasmtimeError):
            channel._memory.grow(channel._store, 1)


def test_wasm_static_memory_counts_as_well():
    own = """
static volatile uint8_t mine[2 << 20];
int edgeward_net_run(const uint8_t *w, const int8_t *const *i, int8_t *const *o, uint8_t *arena) {
    (void)w, (void)i, (void)o;
    return mine[arena[0]]++;
}
"""
    program = stub_program()
    files = {**program.files, "net.c": '#include "net.h"\n' + own}
    with pytest.raises(SecureMemoryExceeded, match="beside its budget"):
        WasmWorld(KEY).open_session(application(program=replace(program, files=files)))


def test_wasm_stack_that_grows_too_far_traps():
    program = stub_program()
    deep = """
int edgeward_deep(volatile uint8_t *arena, int depth) {
    volatile uint8_t here[1024];
    here[0] = arena[0];
    return depth ? edgeward_deep(here, depth - 1) + here[0] : here[0];
}
int edgeward_net_run(const uint8_t *w, const int8_t *const *i, int8_t *const *o, uint8_t *arena) {
    (void)w, (void)i, (void)o;
    return edgeward_deep(arena, 200) & 0;
}
"""
    files = {**program.files, "net.c": '#include "net.h"\n' + deep}
    with WasmWorld(KEY).open_session(application(program=replace(program, files=files))) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        with pytest.raises(SecureWorldDead, match="out of bounds"):
            session.infer([t[0] for t in records(1)])


def test_wasm_module_imports_the_tee_functions_alone():
    import wasmtime

    path = WasmWorld(KEY).build(application())
    module = wasmtime.Module.from_file(wasmtime.Engine(), str(path))
    assert {(i.module, i.name) for i in module.imports} <= {
        ("tee", "TEE_AEDecryptFinal"),
        ("tee", "TEE_GenerateRandom"),
        ("tee", "TEE_GetSystemTime"),
    }
