"""Run an emitted program as WebAssembly (wasmtime): one record at a time, with its deterministic fuel."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from edgeward.codegen.emit import ENTRY, Program
from edgeward.codegen.native_run import check_records
from edgeward.codegen.toolchain import build
from edgeward.core.errors import ConfigError
from edgeward.core.extras import require

_PAGE = 1 << 16
_FUEL = 1 << 62


@final
@dataclass(frozen=True)
class WasmRun:
    """Fuel of one call (about one unit per WebAssembly instruction) and its outputs, int8 [1, bytes]."""

    fuel: int
    outputs: tuple[np.ndarray, ...]


def run_wasm(program: Program, inputs: Sequence[np.ndarray], weights: bytes, *, folder: Path | None = None) -> WasmRun:
    """Run one record ([1, ...] int8 per input) in a fresh instance; errors: `MissingExtra` without wasmtime."""
    if check_records(program, inputs, weights) != 1:
        raise ConfigError("one record at a time", expected="[1, ...]", came=str([list(x.shape) for x in inputs]))
    wasmtime = require("wasmtime", extra="tee-emul")
    configuration = wasmtime.Config()
    configuration.consume_fuel = True
    engine = wasmtime.Engine(configuration)
    store = wasmtime.Store(engine)
    store.set_fuel(_FUEL)
    module = wasmtime.Module.from_file(engine, str(build(program.files, "wasm32", exports=(ENTRY,), folder=folder)))
    exports = wasmtime.Instance(store, module, []).exports(store)
    memory, places = exports["memory"], []
    base = memory.data_len(store)
    contents = [*(np.ascontiguousarray(x).tobytes() for x in inputs), *map(bytes, program.output_bytes), weights]
    contents.append(bytes(program.arena_bytes))
    sizes = [len(content) for content in contents]
    memory.grow(store, -(-(sum(sizes) + 16 * (len(sizes) + 2) + 8 * len(sizes)) // _PAGE))
    for content in contents:
        base += -base % 16
        places.append(base)
        memory.write(store, content, base)
        base += len(content)
    base += -base % 16
    given, made = places[: len(inputs)], places[len(inputs) : -2]
    memory.write(store, struct.pack(f"<{len(places)}I", *places), base)
    status = exports[ENTRY](store, places[-2], base, base + 4 * len(given), places[-1])
    if status:
        raise ConfigError("the program refused its pointers")
    outputs = [bytes(memory.read(store, a, a + n)) for a, n in zip(made, program.output_bytes, strict=True)]
    return WasmRun(_FUEL - store.get_fuel(), tuple(np.frombuffer(content, np.int8)[None] for content in outputs))
