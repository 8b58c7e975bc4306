"""The reference gives the integers of plain loops, for every operator and for whole networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.codegen_loops import Loops
from codegen_networks import quantised
from codegen_zoo import OPERATORS, records, zoo
from edgeward.codegen.integer import INTEGER_OPERATORS, IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.reference import labels, run
from edgeward.core.errors import DataError


def same_as_loops(graph, inputs):
    batch = run(graph, inputs)
    for record in range(len(next(iter(inputs.values())))):
        slow = Loops(graph).run({name: x[record] for name, x in inputs.items()})
        for name in graph.outputs:
            np.testing.assert_array_equal(batch[name][record], slow[name], err_msg=name)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator(operator):
    @settings(max_examples=40, deadline=None, database=None)
    @given(seed=st.integers(0, 2**32))
    def same(seed):
        graph = zoo(seed, (operator,), largest=5)
        same_as_loops(graph, records(graph, 3, seed))

    same()


def test_the_loops_know_every_operator():
    assert all(hasattr(Loops, f"_{operator}") for operator in INTEGER_OPERATORS)


@pytest.mark.parametrize("name", ["monitor", "gated"])
def test_whole_networks(name):
    case = quantised(name)
    same_as_loops(case.graph, {key: x[:2] for key, x in case.inputs.items()})


def sum_graph(width):
    """One output: the largest possible sum over `width` inputs, at a scale that shows every unit of the last bits."""
    weight = np.full((1, width), 127, np.int8)
    tensors = {
        "w": weight,
        "b": np.zeros(1, np.int32),
        "m": np.array([2**30], np.int32),
        "s": np.array([30], np.uint8),
    }
    roles = {"weight": "w", "bias": "b", "multiplier": "m", "shift": "s"}
    node = IntegerNode("sum", "linear", ("x",), "y", {"low": -128, "high": 127}, roles)
    values = {"x": IntegerValue("x", (width,), 1.0, 0), "y": IntegerValue("y", (1,), 1.0, 0)}
    return IntegerGraph(("x",), ("y",), (node,), values, tensors)


@pytest.mark.parametrize("width", [1031, 1033, 20000, 131000])
def test_sums_stay_exact_beyond_single_precision(width):
    graph = sum_graph(width)
    x = np.full((1, width), -128, np.int8)
    # A sum near -128 127 width, brought back by the bias to 5: one unit lost anywhere changes the answer.
    graph.tensors["b"][0] = 128 * 127 * width + 5
    assert run(graph, {"x": x})["y"].tolist() == [[5]]
    x[0, width // 2] = -127
    graph.tensors["b"][0] -= 127
    assert run(graph, {"x": x})["y"].tolist() == [[5]]


def test_argmax_takes_the_first_of_equals_and_counts_beyond_a_byte():
    graph = zoo(0, ("argmax",))
    name, width = graph.inputs[0], 300
    values = {**graph.values, name: IntegerValue(name, (width,), 1.0, 0)}
    graph = IntegerGraph(graph.inputs, graph.outputs, graph.nodes, values, {})
    x = np.full((3, width), -5, np.int8)
    x[0, [7, 250]], x[1, 299] = 90, 1
    assert labels(run(graph, {name: x})[graph.outputs[0]]).tolist() == [7, 299, 0]


def test_batches_do_not_change_the_answer(monkeypatch):
    case = quantised("resnet")
    whole = run(case.graph, case.inputs)
    monkeypatch.setattr("edgeward.codegen.reference._CHUNK_BYTES", 1)
    for name, array in run(case.graph, case.inputs).items():
        np.testing.assert_array_equal(array, whole[name])


def test_an_empty_batch_has_the_shapes_of_its_results():
    case = quantised("lenet", argmax=True)
    none = {name: x[:0] for name, x in case.inputs.items()}
    assert {name: y.shape for name, y in run(case.graph, none).items()} == {case.graph.outputs[0]: (0, 4)}


def test_inputs_are_checked_together():
    case = quantised("monitor")
    first, second = case.inputs.values()
    with pytest.raises(DataError) as caught:
        run(case.graph, {"input_0": first[:, :-1], "other": second})
    for part in (
        "'other' is not an input",
        "'input_0' is int8 [12, 15, 16, 8], not int8 [n, (16, 16, 8)]",
        "'input_1' is missing",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"\[11, 12\] records"):
        run(case.graph, {"input_0": first[:11], "input_1": second})
