"""Plans: what has no place in one is named, what sinks into neighbours, what a digest tells, and altered texts."""

import functools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.mpc.whole_runs import Module, drawn, lenet_network, seeded
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.gains import sink_gains, sink_norms
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.plan_text import read_plan, write_plan
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.core.errors import ConfigError, DataError, ModelError, UnsupportedOperators
from edgeward.graph import capture, to_module
from edgeward.nets import lenet, resnet


def test_everything_without_a_protocol_is_named_at_once():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.GELU(), nn.ConstantPad2d(1, 0.5), nn.Flatten(), nn.Softmax(1), nn.Hardtanh(-1.0, 1e9),
    )  # fmt: skip
    with pytest.raises(UnsupportedOperators, match="2 unsupported operators") as caught:
        lower(capture(module, (3, 9, 9)))
    assert [(layer, operator) for layer, operator, _ in caught.value.problems] == [
        ("2", "pad"), ("5", "clip"),
    ]  # fmt: skip
    assert all(fix for _, _, fix in caught.value.problems)


def test_several_outputs_and_senseless_options_are_refused():
    two = capture(Module(lambda n, x: (x + 1, x.relu())), (3,))
    with pytest.raises(ModelError, match="no plan"):
        lower(two)
    network = capture(nn.ReLU(), (3,))
    for options in ({"records": 0}, {"layout": Layout(60)}):
        with pytest.raises(ConfigError, match="no such plan"):
            lower(network, **options)


def test_gains_sink_exactly_and_zeros_stay():
    module = seeded(lambda: resnet(8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)))
    network = capture(module, (3, 32, 32))
    sunk, x = sink_gains(network), torch.from_numpy(drawn((3, 32, 32), 2))
    assert [node.operator for node in sunk.nodes][:2] == ["add", "conv2d"]
    torch.testing.assert_close(to_module(sunk).eval()(x), module(x), atol=1e-4, rtol=1e-4)
    first = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    grouped = nn.Sequential(first, nn.Conv2d(2, 4, 3, groups=2, padding=1))
    x = torch.from_numpy(drawn((2, 4, 4), 1))
    sunk = sink_gains(capture(grouped, (2, 4, 4)))
    assert [node.operator for node in sunk.nodes] == ["conv2d"]
    torch.testing.assert_close(to_module(sunk).eval()(x), grouped(x))
    with torch.no_grad():
        first.weight[1] = 0
    assert len(sink_gains(capture(grouped, (2, 4, 4))).nodes) == 2


def test_positive_norms_before_a_rectifier_sink_and_others_stay():
    module = seeded(lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, groups=2)))
    network, x = capture(module, (4, 5, 5)), torch.from_numpy(drawn((4, 5, 5), 2))
    sunk = sink_norms(network)
    assert [node.operator for node in sunk.nodes] == ["add", "relu", "conv2d"]
    torch.testing.assert_close(to_module(sunk).eval()(x), module(x))
    rows = cost_table(lower(network).plan).rows
    assert [row.online.bytes for row in rows if row.operator in ("batch_norm", "add")] == [0]
    for role, value in (("weight", -1.0), ("weight", 1e-3), ("bias", 1e4)):
        state = {key: t.clone() for key, t in network.tensors.items()}
        state[f"0.{role}"][1] = value
        assert sink_norms(network.with_tensors(state)).nodes == network.nodes


def test_equal_plans_have_equal_digests_and_say_nothing_of_the_weights():
    network = lenet_network()
    plan, other = lower(network).plan, lower(network.with_tensors(lenet().state_dict())).plan
    assert plan.digest == lower(network).plan.digest == other.digest
    assert plan.digest != lower(network, 2).plan.digest


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_altered_plan_is_another_plan_or_refused(data):
    text = plan_text()
    start = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(st.sampled_from(["", "0", "-1", "null", "[", "}", '"x"', "1e9", "true", "[[[]]]"]))
    altered = text[:start] + piece + text[start + data.draw(st.integers(0, 6)) :]
    try:
        plan = read_plan(altered)
    except DataError:
        return
    assert (write_plan(plan) == text) == (json.loads(altered) == json.loads(text))


@functools.cache
def plan_text():
    return write_plan(lower(capture(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2)), (1, 4, 4))).plan)
