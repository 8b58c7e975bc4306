"""The performance emulator against metered runs of the emitted C, on monitors it was not calibrated on.

`python -m benchmarks.tee_emulator` fits the instruction model anew and stores it, for when the kernels have changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.tee_graphs import Draft, layers, monitor
from edgeward.backends.tee.build import fixed_source
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.instruction_model import InstructionModel, fit, from_profile
from edgeward.backends.tee.secure_steps import SecureStep, steps_of
from edgeward.backends.tee.split_shape import SplitShape
from edgeward.codegen.arena import plan
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import Program, emit
from edgeward.codegen.integer import IntegerGraph
from edgeward.codegen.meter import count
from edgeward.devices import load_profile
from edgeward.graph.network import Network, Value

NAME = "tee-emulator"
DESCRIPTION = "Secure-world instructions of 24 random monitors: emulator against counted aarch64 instructions"

STRATEGIES, LAYERS, PROFILE = 24, 400, "qemu-v8"
CALIBRATION_SEED, VALIDATION_SEED = 20240, 7
STORED = Path(__file__).parents[1] / "src/edgeward/backends/tee/instructions.json"
SOURCE = f"Unicorn, aarch64, {LAYERS} single layers of random shapes (benchmarks/tee_emulator.py)"

_COPYING = """#include "copy.h"
#include "net.h"
int edgeward_inner_run(const uint8_t *, const int8_t *const *, int8_t *const *, uint8_t *);
int edgeward_net_run(const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs, uint8_t *arena) {
  const int8_t *copies[EDGEWARD_NET_INPUTS];
  static const uint32_t sizes[EDGEWARD_NET_INPUTS] = EDGEWARD_NET_INPUT_SIZES;
  uint8_t *to = arena + EDGEWARD_NET_ARENA_BYTES;
  for (uint32_t i = 0; i < EDGEWARD_NET_INPUTS; i++) {
    edgeward_copy(to, inputs[i], sizes[i]);
    copies[i] = (const int8_t *)to;
    to += (sizes[i] + 63) / 64 * 64;
  }
  return %s;
}
"""


def with_copies(program: Program, run: bool = True) -> Program:
    """Return `program` behind the trusted application's copy of its inputs; without `run`, the copies alone."""
    files = {name: text.replace("edgeward_net_run", "edgeward_inner_run") for name, text in program.files.items()}
    call = "edgeward_inner_run(weights, copies, outputs, arena)" if run else "(void)weights, (void)outputs, 0"
    files |= {"entry.c": _COPYING % call, "copy.h": fixed_source("copy.h")}
    room = program.arena_bytes + sum((size + 63) // 64 * 64 for size in program.input_bytes)
    return Program(files, room, program.weights_bytes, program.input_bytes, program.output_bytes, program.steps)


def metered(draft: Draft, graph: IntegerGraph) -> tuple[int, list[tuple[SecureStep, int]]]:
    """Return the counted instructions of copies and network together, and those of each step."""
    program = with_copies(emit(graph, plan(graph)))
    counted = count(program, draft.records(), pack(graph))
    shapes = {step.name: step for step in steps_of(graph)}
    return counted.total, [(shapes[name], instructions) for name, instructions in counted.steps]


def calibrate() -> InstructionModel:
    """Fit the instruction model to counted single layers and counted copies."""
    draft = layers(np.random.default_rng(CALIBRATION_SEED), LAYERS)
    graph = draft.graph(*(node.output for node in draft.nodes))
    # the last step also holds what comes after it: the copies of all outputs
    counted = metered(draft, graph)[1][:-1]
    return fit([step for step, _ in counted], [n for _, n in counted], SOURCE, _copy_cost())


def _copy_cost() -> dict[str, float]:
    """Return the instructions per byte and per call of the trusted application's copy."""
    rows = []
    for sizes in ((64,), (1024,), (4096,), (100,), (777,), (50, 60), (640, 640, 1280), (16384,)):
        draft = Draft(np.random.default_rng(0))
        last = [draft.argmax(draft.input(size)) for size in sizes]
        graph = draft.graph(*last)
        alone = with_copies(emit(graph, plan(graph)), run=False)
        rows.append((sum(sizes), len(sizes), count(alone, draft.records(), pack(graph)).total))
    data = np.array(rows, float)
    weights = 1 / data[:, 2]
    found = np.linalg.lstsq(data[:, :2] * weights[:, None], data[:, 2] * weights, rcond=None)[0]
    return {"bytes": float(found[0]), "calls": float(max(found[1], 0.0))}


def shape(graph: IntegerGraph) -> SplitShape:
    """Return `graph` as a split whose normal world hands over its inputs as they are."""
    values = {name: Value(name, tuple(graph.values[name].shape)) for name in graph.inputs}
    normal = Network(graph.inputs, graph.inputs, (), values, {})
    sizes = tuple(graph.values[name].bytes for name in graph.inputs)
    return SplitShape("monitor", normal, graph.inputs, sizes, steps_of(graph), len(pack(graph)), plan(graph).bytes, 4)


def run() -> dict:
    """Estimate and meter every monitor; errors are |estimate - counted| / counted over all secure-world
    instructions.
    """
    from scipy.stats import kendalltau

    profile = load_profile(PROFILE)
    emulator, coarse = Emulator(profile), Emulator(profile, model=from_profile(profile.need_secure_world()))
    world = profile.need_secure_world()
    rng, rows = np.random.default_rng(VALIDATION_SEED), []
    for _ in range(STRATEGIES):
        draft, answer = monitor(rng)
        graph = draft.graph(answer)
        total, steps = metered(draft, graph)
        fixed = world.switch_instructions.value + 2 * world.memref_instructions.value
        found, rough = (e.estimate(shape(graph), "batch").instructions for e in (emulator, coarse))
        inside = found["secure"] + found["copy"]
        macs = sum(step.macs for step, _ in steps)
        rows.append((total + fixed, sum(found.values()), sum(rough.values()), total, inside, macs))
    counted, estimate, rough, alone, alone_estimate, macs = np.array(rows, float).T
    error, peer = np.abs(estimate / counted - 1), np.abs(rough / counted - 1)
    return {
        "name": NAME,
        "ratio": float(peer.mean() / error.mean()),
        "ours": float(error.mean()),
        "peer": float(peer.mean()),
        "unit": "mean relative error",
        "peer_name": "instructions per MAC and element of the device profile",
        "n": len(rows),
        "kendall_tau": float(kendalltau(estimate, counted).statistic),
        "mean_error": float(error.mean()),
        "largest_error": float(error.max()),
        "kendall_tau_without_switch": float(kendalltau(alone_estimate, alone).statistic),
        "mean_error_without_switch": float(np.abs(alone_estimate / alone - 1).mean()),
        "kendall_tau_of_macs": float(kendalltau(macs, counted).statistic),
        "counted_instructions": [int(n) for n in counted],
        "estimated_instructions": [round(float(n)) for n in estimate],
        "calibration": emulator.model.source,
        "calibration_error": emulator.model.error,
        "tier": "counted: Unicorn aarch64 for copies and operators; switch and memref constants of the profile",
        "profile": PROFILE,
    }


if __name__ == "__main__":
    model = calibrate()
    STORED.write_text(json.dumps(model.to_json(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{STORED}: mean error {model.error:.3f} over {model.samples} layers\n")
