import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.graph import Network, Node, Value, capture, peak_activation_bytes


def chain(*steps):
    """Build a network of (output, operator, inputs, elements) rows; elements of the input "x" come first."""
    values = {"x": Value("x", (steps[0],))}
    nodes = []
    for name, operator, inputs, elements in steps[1:]:
        attributes = {"reshape": {"shape": (elements,)}, "concat": {"axis": 0}, "softmax": {"axis": 0}}.get(
            operator, {}
        )
        values[name] = Value(name, (elements,))
        nodes.append(Node(name, "", operator, inputs, name, attributes))
    return Network(("x",), (nodes[-1].output,), tuple(nodes), values, {})


def test_by_hand_chain():
    network = chain(10, ("a", "softmax", ("x",), 10), ("b", "relu", ("a",), 10), ("c", "softmax", ("b",), 10))
    plan = peak_activation_bytes(network, 4)
    # x and a; b over a alone, since x is dead; then c beside b.
    assert plan.table == (("a", 80.0), ("b", 40.0), ("c", 80.0))
    assert (plan.peak_bytes, plan.at_node) == (80.0, "a")


def test_by_hand_residual_keeps_the_branch_alive():
    rows = [("a", "softmax", ("x",), 10), ("b", "softmax", ("a",), 10), ("c", "softmax", ("b",), 10)]
    network = chain(10, *rows, ("d", "add", ("c", "a"), 10), ("e", "concat", ("d", "d"), 20))
    assert peak_activation_bytes(network, 1).table == (("a", 20), ("b", 20), ("c", 30), ("d", 20), ("e", 30))


def test_input_is_never_overwritten_and_views_are_free():
    network = chain(8, ("a", "relu", ("x",), 8), ("b", "reshape", ("a",), 8), ("c", "relu", ("b",), 8))
    assert peak_activation_bytes(network, 1).table == (("a", 16), ("b", 8), ("c", 8))


def test_a_view_that_lives_on_forbids_overwriting():
    rows = [("a", "softmax", ("x",), 8), ("v", "reshape", ("a",), 8), ("b", "relu", ("a",), 8)]
    network = chain(8, *rows, ("c", "add", ("b", "v"), 8))
    assert peak_activation_bytes(network, 1).table == (("a", 16), ("v", 8), ("b", 16), ("c", 16))


def test_bytes_may_depend_on_the_value():
    network = chain(16, ("a", "softmax", ("x",), 16), ("b", "softmax", ("a",), 16))
    plan = peak_activation_bytes(network, lambda value: 1 / 8 if value.name == "a" else 4)
    assert plan.table == (("a", 66.0), ("b", 66.0))


def test_constants_live_with_the_weights():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))

        def forward(self, x):
            return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)

    assert peak_activation_bytes(capture(Token(), (2, 4)), 1).peak_bytes == 8 + 12


def test_mobilenet_v2_at_144_pixels():
    """303.75 KiB of int8 activations: 48 x 72 x 72 in and 48 x 36 x 36 out of the first strided depthwise layer."""
    nets = pytest.importorskip("edgeward.nets")
    network = capture(nets.mobilenet_v2(0.35), (3, 144, 144))
    plan = peak_activation_bytes(network, 1)
    assert plan.peak_bytes / 1024 == 303.75
    node = network.node(plan.at_node)
    assert (node.operator, node.attributes["groups"]) == ("conv2d", 48)


@given(st.lists(st.tuples(st.sampled_from(["relu", "softmax", "reshape"]), st.integers(0, 5)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_peak_is_between_the_largest_step_and_the_sum(rows):
    """Never below one node's inputs and output, never above all values at once."""
    names, steps = ["x"], []
    for number, (operator, back) in enumerate(rows):
        source = names[max(0, len(names) - 1 - back)]
        steps.append((f"v{number}", operator, (source,), 4))
        names.append(f"v{number}")
    plan = peak_activation_bytes(chain(4, *steps), 1)
    assert 4 <= plan.peak_bytes <= 4 * len(names)
    assert plan.peak_bytes == max(b for _, b in plan.table)
    assert dict(plan.table)[plan.at_node] == plan.peak_bytes
