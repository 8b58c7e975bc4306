"""Write an integer graph as plain C11: shapes are constants of the text, every weight is read from a separate blob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, final

from edgeward.codegen.check import check
from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.codegen.scratch import scratch_bytes
from edgeward.codegen.statements import STATEMENTS, Place
from edgeward.core.errors import ModelError

if TYPE_CHECKING:
    from edgeward.codegen.arena import ArenaPlan

ENTRY = "edgeward_net_run"
_SIGNATURE = (
    "int edgeward_net_run(const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs,\n"
    "                     uint8_t *arena)"
)


@final
@dataclass(frozen=True)
class Program:
    """A network as C sources: one entry, `edgeward_net_run`, and the memory it needs from its caller.

    `files` maps a file's name to its text (the fixed kernels included); sizes are in bytes per record.
    """

    files: Mapping[str, str]
    arena_bytes: int
    weights_bytes: int
    input_bytes: tuple[int, ...]
    output_bytes: tuple[int, ...]
    steps: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the files to compile."""
        return tuple(sorted(name for name in self.files if name.endswith(".c")))


def kernel_files() -> dict[str, str]:
    """Return the fixed kernel sources and headers by name."""
    folder = resources.files("edgeward.codegen") / "kernels"
    found = sorted((f for f in folder.iterdir() if f.name[-2:] in (".c", ".h")), key=lambda f: f.name)
    return {f.name: f.read_text("utf-8") for f in found}


def emit(graph: IntegerGraph, plan: ArenaPlan) -> Program:
    """Return the C program of `graph` with its values at the places of `plan`.

    The text is a function of the graph's shapes, zero points and scales and of the plan, never of a weight. The entry
    takes the blob of `codegen.blob.pack`, one pointer per input and output, and `arena_bytes` of memory; it allocates
    nothing, calls nothing, needs no alignment and returns 0, or 1 when a pointer is null. Inputs and outputs must not
    be written by others while it runs. Errors: `ModelError` for a graph or a plan that does not fit.
    """
    from edgeward.codegen.blob import blob_bytes, layout

    check(graph)
    _check_plan(graph, plan)
    nodes = [node for node in graph.nodes if node.operator != "reshape"]
    places = _places(graph, plan)
    place = Place(graph, lambda name: places[name], layout(graph), f"arena + {int(plan.scratch_offset)}")
    inputs, outputs = (tuple(v.bytes for v in graph.value_of(names)) for names in (graph.inputs, graph.outputs))
    arena_bytes, weights_bytes = int(plan.bytes), blob_bytes(graph)
    copies = [
        f"ew_copy(outputs[{i}], {places[name]}, {graph.values[name].bytes});"
        for i, name in enumerate(graph.outputs)
        if places[name] != f"outputs[{i}]"
    ]
    files = {
        **kernel_files(),
        "net.h": _header(arena_bytes, weights_bytes, inputs, outputs),
        "net.c": _source(place, nodes, copies),
    }
    return Program(files, arena_bytes, weights_bytes, inputs, outputs, tuple(node.name for node in nodes))


def _places(graph: IntegerGraph, plan: ArenaPlan) -> dict[str, str]:
    """Return the C expression of every value: an input, the value it is a view of, its arena place, or an output."""
    places = {name: f"inputs[{i}]" for i, name in enumerate(graph.inputs)}
    for node in graph.nodes:
        if node.operator == "reshape":
            places[node.output] = places[node.inputs[0]]
        elif node.output in plan.offsets:
            places[node.output] = f"(arena + {int(plan.offsets[node.output])})"
        else:
            places[node.output] = f"outputs[{graph.outputs.index(node.output)}]"
    return places


def _check_plan(graph: IntegerGraph, plan: ArenaPlan) -> None:
    problems = []
    for node in graph.nodes:
        offset, size = plan.offsets.get(node.output), graph.values[node.output].bytes
        if node.operator == "reshape":
            continue
        if offset is None and node.output not in graph.outputs:
            problems.append(f"{node.output} has no place")
        if offset is not None and not 0 <= offset <= plan.bytes - size:
            problems.append(f"{node.output} lies at {offset}..{offset + size} of {plan.bytes} bytes")
    need = max((scratch_bytes(graph, node) for node in graph.nodes), default=0)
    room = min(plan.scratch_bytes, plan.bytes - plan.scratch_offset)
    if need and (need > room or plan.scratch_offset < 0):
        problems.append(f"scratch memory holds {room} bytes, {need} are needed")
    if problems:
        raise ModelError("the arena plan does not fit the graph:\n  " + "\n  ".join(problems))


def _header(arena_bytes: int, weights_bytes: int, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> str:
    lines = [
        f"#define EDGEWARD_NET_WEIGHTS_BYTES {weights_bytes}",
        f"#define EDGEWARD_NET_ARENA_BYTES {arena_bytes}",
        f"#define EDGEWARD_NET_INPUTS {len(inputs)}",
        f"#define EDGEWARD_NET_OUTPUTS {len(outputs)}",
        *(f"#define EDGEWARD_NET_INPUT_BYTES_{i} {size}" for i, size in enumerate(inputs)),
        *(f"#define EDGEWARD_NET_OUTPUT_BYTES_{i} {size}" for i, size in enumerate(outputs)),
        "#define EDGEWARD_NET_INPUT_SIZES {" + ", ".join(map(str, inputs)) + "}",
        "#define EDGEWARD_NET_OUTPUT_SIZES {" + ", ".join(map(str, outputs)) + "}",
    ]
    body = "\n".join(lines)
    return (
        "/* One network: sizes in bytes, and its entry. */\n#ifndef EDGEWARD_NET_H\n#define EDGEWARD_NET_H\n\n"
        f"#include <stdint.h>\n\n{body}\n\n/* Return 0, or 1 when a pointer is null. */\n{_SIGNATURE};\n\n#endif\n"
    )


def _source(place: Place, nodes: list[IntegerNode], copies: list[str]) -> str:
    arguments = "const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs, int8_t *arena"
    steps = []
    for i, node in enumerate(nodes):
        lines = "\n".join(f"  {line}" for line in STATEMENTS[node.operator](place, node))
        steps.append(
            f"/* {_comment(place.graph, node)} */\n"
            f"EW_STEP_FUNCTION edgeward_step_{i}({arguments}) {{\n"
            f"  (void)weights, (void)inputs, (void)outputs, (void)arena;\n{lines}\n}}\n"
        )
    calls = [f"edgeward_step_{i}(weights, inputs, outputs, memory);" for i in range(len(nodes))]
    guards = [f"!inputs[{i}]" for i in range(len(place.graph.inputs))]
    guards += [f"!outputs[{i}]" for i in range(len(place.graph.outputs))]
    body = "\n".join(f"  {line}" for line in [*calls, *(c.replace("(arena + ", "(memory + ") for c in copies)])
    return (
        '#include "net.h"\n\n#include "ew_kernels.h"\n\n'
        "#define EW_STEP_FUNCTION static __attribute__((noinline)) void\n\n" + "\n".join(steps) + "\n"
        f"{_SIGNATURE} {{\n"
        "  int8_t *memory = (int8_t *)arena;\n"
        "  if (!weights || !inputs || !outputs || !arena) return 1;\n"
        f"  if ({' || '.join(guards)}) return 1;\n"
        f"{body}\n  return 0;\n}}\n"
    )


def _comment(graph: IntegerGraph, node: IntegerNode) -> str:
    shapes = ["x".join(map(str, v.shape)) for v in graph.value_of((*node.inputs, node.output))]
    name = re.sub(r"[^A-Za-z0-9_.]", "_", node.name)
    return f"{name}: {node.operator} {', '.join(shapes[:-1])} -> {shapes[-1]}"
