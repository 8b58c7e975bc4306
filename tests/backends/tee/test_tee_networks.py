"""Whole networks in secure worlds: the bits of the integer reference, whatever the tier and the policy."""

import sys

import numpy as np
import pytest

from backends.tee.sanitized_ta import sanitized, survives
from codegen_networks import NAMES, quantised
from edgeward.backends.tee.sealing import new_key, seal
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.backends.tee.world import Application
from edgeward.codegen.arena import plan
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import emit
from edgeward.codegen.reference import run

KEY, DIGEST = new_key(), bytes(32)
# A trusted application has one answer, so "gated" with its two outputs is none. (name, argmax)
QUICK = [("monitor", True), ("resnet", False)]
MORE = [(name, argmax) for name in NAMES if name != "gated" for argmax in (True, False) if (name, argmax) not in QUICK]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]


def application(name, *, argmax):
    network = quantised(name, argmax)
    graph = network.graph
    program = emit(graph, plan(graph))
    policy = "label" if argmax else "logits"
    return network, Application(program, DIGEST, 4 << 20, policy=policy, ends_in_argmax=argmax)


def worlds():
    found = [WasmWorld(KEY)]
    if sys.platform.startswith("linux"):
        from edgeward.backends.tee.process_world import ProcessWorld

        found.append(ProcessWorld(KEY))
    return found


@pytest.mark.parametrize(("name", "argmax"), CASES)
def test_networks_answer_as_the_reference_does(name, argmax):
    network, app = application(name, argmax=argmax)
    graph = network.graph
    taps = [network.inputs[value] for value in graph.inputs]
    expected = run(graph, network.inputs)[graph.outputs[0]]
    if argmax:
        expected = np.ascontiguousarray(expected).reshape(len(taps[0]), 4).view("<i4").reshape(-1)
    sealed = seal(pack(graph), KEY, DIGEST, 1)
    for world in worlds():
        with world.open_session(app) as session:
            session.load(sealed)
            np.testing.assert_array_equal(session.infer_all(taps), expected)


@pytest.mark.parametrize("name", ["monitor", pytest.param("mobilenet", marks=pytest.mark.slow)])
def test_fuzzed_networks_stay_within_bounds(tmp_path, name):
    _, app = application(name, argmax=True)
    survives(sanitized(app, tmp_path), 10_000 if name == "monitor" else 1_000)
