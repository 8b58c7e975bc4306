"""The int8 form for a device: C sources, weights and a description, as files that lie beside the model in a bundle."""

from __future__ import annotations

from typing import Any

from edgeward.backends.cleartext.container import canonical_json
from edgeward.codegen.arena import plan
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import ENTRY, emit
from edgeward.codegen.integer import IntegerGraph


def c_files(graph: IntegerGraph) -> dict[str, bytes]:
    """Return the files by path under `c/`: sources and headers, `weights.bin`, and `form.json`.

    `form.json` gives the entry, the bytes of arena and weights, and shape (channels last), scale and zero point of
    every input and output: real = (q - zero_point) scale. The same graph gives the same bytes.
    """
    program = emit(graph, plan(graph))
    described: dict[str, Any] = {
        "entry": ENTRY,
        "arena_bytes": program.arena_bytes,
        "weights_bytes": program.weights_bytes,
        "inputs": [_grid(graph, name) for name in graph.inputs],
        "outputs": [_grid(graph, name) for name in graph.outputs],
    }
    files = {f"c/{name}": text.encode("utf-8") for name, text in program.files.items()}
    return {**files, "c/weights.bin": pack(graph), "c/form.json": canonical_json(described).encode("ascii")}


def _grid(graph: IntegerGraph, name: str) -> dict[str, Any]:
    value = graph.values[name]
    return {
        "shape": [int(extent) for extent in value.shape],
        "scale": float(value.scale),
        "zero_point": int(value.zero_point),
    }
