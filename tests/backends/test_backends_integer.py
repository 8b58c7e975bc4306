"""The int8 form: what the bundle's C computes is what the file's executable answered, and hostile files are refused."""

import ctypes
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.operator_table import QuantizedConv2d, QuantizedLinear
from edgeward.backends import BACKENDS
from edgeward.backends.cleartext.container import read_container, write_container
from edgeward.backends.integer.storage import from_file, to_file
from edgeward.codegen.arena import plan
from edgeward.codegen.calibration import calibrated
from edgeward.codegen.native_run import aligned
from edgeward.codegen.quantize import quantize, quantize_calibrated
from edgeward.codegen.toolchain import build
from edgeward.core.errors import DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.deploy import Bundle, Vectors, synthetic_vectors, write_bundle
from edgeward.graph import capture

SHAPE, C = (3, 9, 8), BACKENDS["c"]


class Branches(nn.Module):
    """Convolutions of integers, a sum, a concatenation on two grids, a table, a mean."""

    def __init__(self):
        super().__init__()
        self.stem = QuantizedConv2d(3, 4, 8, 8)
        self.left, self.right = QuantizedConv2d(4, 4, 8, 8), QuantizedConv2d(4, 4, 4, 8)
        self.head = QuantizedLinear(12, 5, 8, 8)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        left, right = self.left(x), torch.tanh(self.right(x))
        both = torch.cat([left, left + right, right], dim=1)
        return self.head(both.mean((2, 3)))


def records(count=20, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return capture(Branches().eval(), SHAPE)


@pytest.fixture(scope="module")
def artefact(network):
    return C.lower(C.ready(network, records()))


def test_a_calibrated_network_gives_the_graph_of_network_and_records(network):
    given_records = {network.inputs[0]: records()}
    both, alone = quantize(network, given_records), quantize_calibrated(calibrated(network, given_records))
    assert to_file(both) == to_file(alone)
    narrow = calibrated(network, given_records, percentile=99.0)
    assert to_file(quantize_calibrated(narrow)) == to_file(quantize(network, given_records, percentile=99.0))
    assert to_file(quantize_calibrated(narrow)) != to_file(both)


def test_without_ranges_nothing_ships_and_another_state_forbids_them(network):
    with pytest.raises(ModelError, match=r"no range(.|\n)*calibrate"):
        C.lower(network)
    with pytest.raises(ModelError, match="another state"):
        C.ready(network, records()).with_tensors({})


def test_the_file_holds_the_graph(network, artefact):
    graph = from_file(artefact)
    assert to_file(graph) == artefact
    assert plan(graph).bytes == plan(quantize(network, {network.inputs[0]: records()})).bytes
    weights = sum(tensor.nbytes for tensor in graph.tensors.values())
    assert weights < len(artefact) < weights + 400 * len(graph.nodes)


def test_the_c_of_a_bundle_compiled_answers_as_the_bundle(network, artefact, tmp_path):
    x = synthetic_vectors(SHAPE, 6, Seed(1))
    report = write_bundle(
        tmp_path / "b", artefact=artefact, backend="c", card="# Card", vectors=Vectors.answered_by(C.load(artefact), x)
    )
    assert report.tolerance == report.largest_difference == 0
    bundle = Bundle.load(tmp_path / "b", expect=report.manifest_digest)
    read = {entry.path.removeprefix("device/c/"): bundle.read(entry.path) for entry in bundle.manifest.files}
    form = json.loads(read["form.json"])
    sources = {name: data.decode() for name, data in read.items() if name.endswith((".c", ".h"))}
    entry = ctypes.CDLL(str(build(sources, "native", exports=(form["entry"],))))[form["entry"]]
    entry.argtypes = [ctypes.c_void_p] * 4
    weights, arena = np.frombuffer(read["weights.bin"], np.uint8), aligned(form["arena_bytes"])
    (source,), (target,) = form["inputs"], form["outputs"]
    assert len(weights) == form["weights_bytes"]
    for record, expected in zip(x, bundle.run(x), strict=True):
        steps = np.rint(np.moveaxis(record, 0, -1).astype(np.float64) / source["scale"]) + source["zero_point"]
        given_bytes = np.ascontiguousarray(np.clip(steps, -128, 127).astype(np.int8))
        made = np.zeros(target["shape"], np.int8)
        inputs, outputs = (ctypes.c_void_p * 1)(given_bytes.ctypes.data), (ctypes.c_void_p * 1)(made.ctypes.data)
        assert entry(weights.ctypes.data, inputs, outputs, arena.ctypes.data) == 0
        real = (made.astype(np.float64) - target["zero_point"]) * target["scale"]
        assert np.array_equal(real.astype(np.float32), expected)


def test_answers_do_not_depend_on_the_batch_and_records_must_fit(artefact):
    executable, x = C.load(artefact), records(5, 1)
    assert np.array_equal(executable.run(x), np.concatenate([executable.run(x[i : i + 1]) for i in range(5)]))
    assert np.isfinite(executable.run(1e30 * x)).all()
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        executable.run(x)


def rewritten(artefact, change):
    """Return the file with its graph changed as plain JSON, or its weights."""
    tensors, metadata = read_container(artefact)
    plain, weights = json.loads(metadata["graph"]), tensors["weights"].copy()
    weights = change(plain, weights)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    kept = tensors["weights"] if weights is None else weights
    return write_container({"weights": kept}, {**metadata, "graph": text})


def setting(node, name, value):
    def change(plain, weights):
        plain["nodes"][node][3][name] = value

    return change


def at(*path, value):
    def change(plain, weights):
        for step in path[:-1]:
            plain = plain[step]
        plain[path[-1]] = value

    return change


HOSTILE = {
    "shift": setting(0, "low", [1]),
    "window": setting(0, "stride", [0, 1]),
    "wide_window": setting(0, "stride", [2**50, 1]),
    "negative_padding": setting(0, "padding", [-1, 0, 0, 0]),
    "padding_of_two": setting(0, "padding", [1, 1]),
    "foreign_setting": setting(0, "bits", 3),
    "true_for_one": setting(0, "groups", True),
    "fraction": setting(0, "groups", 1.0),
    "shape": at("values", 1, 0, value=[99, 99, 4]),
    "huge": at("values", 1, 0, value=[2**20, 2**20, 4]),
    "negative": at("values", 1, 0, value=[-1, 5, 4]),
    "no_scale": at("values", 1, 1, value=0.0),
    "whole_scale": at("values", 1, 1, value=1),
    "zero_point": at("values", 1, 2, value=200),
    "operator": at("nodes", 0, 1, value="system"),
    "later_value": at("nodes", 0, 2, value=[3]),
    "negative_value": at("nodes", 0, 2, value=[-1]),
    "no_tensor": at("nodes", 0, 4, "weight", value=999),
    "other_tensor": at("nodes", 0, 4, "weight", value=1),
    "outputs": at("outputs", value=[999]),
    "no_outputs": at("outputs", value=[]),
    "two_inputs": at("input", value=2),
    "tensor_kind": at("tensors", 0, 0, value="f4"),
    "tensor_shape": at("tensors", 0, 1, value=[4, 3, 3, 2]),
    "nodes": at("nodes", value={}),
    "no_nodes": at("nodes", value=[]),
    "extra": at("extra", value=1),
    "short_weights": lambda plain, weights: weights[:-16],
    "weight_of_minus_128": lambda plain, weights: np.where(np.arange(len(weights)) == 0, 128, weights).astype(np.uint8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_model_error(artefact, name):
    assert from_file(rewritten(artefact, lambda plain, weights: None))
    with pytest.raises(ModelError, match="int8 file is malformed"):
        C.load(rewritten(artefact, HOSTILE[name]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_refused_or_still_runs(artefact, data):
    place = data.draw(st.integers(0, len(artefact) - 1))
    changed = bytearray(artefact)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        executable = C.load(bytes(changed))
    except ModelError:
        return
    if executable.input_shape == SHAPE:
        assert executable.run(records(2)).dtype == np.float32
