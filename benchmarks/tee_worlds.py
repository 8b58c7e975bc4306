"""Round trips into the emulated secure worlds against the standard library's way of asking another process."""

import multiprocessing
import os
import time

import numpy as np

from edgeward.backends.tee.process_world import ProcessWorld
from edgeward.backends.tee.sealing import new_key, seal
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.backends.tee.world import Application
from edgeward.codegen.arena import plan
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import emit
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue

NAME = "tee-worlds"
DESCRIPTION = "no-op round trip into the process tier (bound: 20 us median): ours against multiprocessing.Pipe"

_ROUNDS = 20_000
_INVOCATIONS = 1_000_000
_TAP_BYTES = 65536
_BOUND_US, _GROWTH_BYTES = 20.0, 256 << 10


def largest_of(count: int) -> IntegerGraph:
    """Return a network that only names the largest of `count` inputs: all its cost is the way in."""
    values = {"x": IntegerValue("x", (count,), 1.0, 0), "y": IntegerValue("y", (4,), 1.0, 0)}
    return IntegerGraph(("x",), ("y",), (IntegerNode("largest", "argmax", ("x",), "y"),), values, {})


def median_us(call, rounds: int) -> float:
    """Return the median duration of `call()` in microseconds."""
    times = np.empty(rounds)
    for i in range(rounds):
        start = time.perf_counter_ns()
        call()
        times[i] = time.perf_counter_ns() - start
    return float(np.median(times)) / 1e3


def resident_bytes(process: str) -> int:
    """Return the resident memory of a process of /proc."""
    with open(f"/proc/{process}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def echo(door) -> None:
    """Send back what comes until nothing does."""
    while message := door.recv_bytes():
        door.send_bytes(message)


def peer_us() -> float:
    """Return the median round trip of the same 72 bytes through `multiprocessing.Pipe`."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=echo, args=(there,), daemon=True)
    process.start()
    message = bytes(range(1, 73))

    def call() -> None:
        here.send_bytes(message)
        here.recv_bytes()

    median_us(call, 500)
    found = median_us(call, _ROUNDS)
    here.send_bytes(b"")
    process.join()
    return found


def measured(world, key, invocations: int) -> dict:
    """Return the figures of one tier."""
    graph = largest_of(_TAP_BYTES)
    digest = bytes(32)
    application = Application(emit(graph, plan(graph)), digest, 1 << 20)
    world.build(application)
    start = time.perf_counter()
    with world.open_session(application) as session:
        opened = time.perf_counter() - start
        session.load(seal(pack(graph), key, digest, 0))
        tap = [np.arange(_TAP_BYTES, dtype=np.int64).astype(np.int8)]
        assert session.infer(tap) == 127
        median_us(session.noop, 500)
        result = {
            "open_ms": opened * 1e3,
            "noop_us": median_us(session.noop, _ROUNDS),
            "infer_64KiB_us": median_us(lambda: session.infer(tap), 500),
        }
        processes = ["self"]
        processes += [str(session._channel._process.pid)] if world.tier == "process" else []
        before = [resident_bytes(p) for p in processes]
        for _ in range(invocations):
            session.noop()
        growth = [resident_bytes(p) - b for p, b in zip(processes, before, strict=True)]
    return {**result, "invocations": invocations, "growth_bytes": max(growth)}


def run() -> dict:
    """Measure both tiers and the peer in this process."""
    key = new_key()
    process = measured(ProcessWorld(key), key, _INVOCATIONS)
    wasm = measured(WasmWorld(key), key, _INVOCATIONS // 10)
    peer = peer_us()
    return {
        "ratio": peer / process["noop_us"],
        "ours": process["noop_us"],
        "peer": peer,
        "peer_name": "multiprocessing.Pipe",
        "unit": "us",
        "bound_us": _BOUND_US,
        "within_bound": process["noop_us"] <= _BOUND_US,
        "no_growth": max(process["growth_bytes"], wasm["growth_bytes"]) <= _GROWTH_BYTES,
        "process": process,
        "wasm": wasm,
    }
