"""Networks on secret input: answers against the integer reference and the float network, traffic against the plan."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from backends.mpc.whole_runs import checked, drawn, seeded
from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.expense import cost_table, metered
from edgeward.backends.mpc.inference.gains import sink_gains, sink_norms
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.plan_text import read_plan, write_plan
from edgeward.backends.mpc.inference.reference import OutOfRange, check_range, compute, dealt_masks
from edgeward.backends.mpc.inference.session import Session
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.offline.tuples import Dealer, TupleReusedError
from edgeward.backends.mpc.party import Party, ProtocolError
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.rehearsal import rehearse, run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.transport.meter import Reading, Traffic
from edgeward.backends.mpc.transport.network import LAN, WAN
from edgeward.core.errors import ConfigError, DataError, ModelError, UnsupportedOperators
from edgeward.graph import capture, to_module
from edgeward.nets import densenet, lenet, mobilenet_v2, pretrained, resnet, resnet_tiny

DATA = Path(os.environ.get("EDGEWARD_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data")


class Module(nn.Module):
    """A forward pass given as a function of the layers and the input."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers, self.function = nn.ModuleDict(layers), forward

    def forward(self, x):
        return self.function(self.layers, x)


@functools.cache
def lenet_network():
    return capture(seeded(lenet), (1, 28, 28))


NETS = {
    "lenet": (lenet, (1, 28, 28)),
    "resnet-8": (lambda: resnet(8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)), (3, 32, 32)),
    "resnet-tiny": (lambda: resnet_tiny(), (3, 32, 32)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_network_equals_the_reference_in_bits_and_the_float_network_closely(name):
    build, shape = NETS[name]
    checked(seeded(build), shape)


def _conv(inputs, outputs, *args, **options):
    return nn.Conv2d(inputs, outputs, *args, **options)


PIECES = {
    "norm-first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), _conv(3, 4, 3, padding=1)),
    "norm-alone": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2), _conv(3, 4, 3, padding=1)),
    "norm-after-two-readers": lambda: Module(
        lambda n, x: n["norm"](n["conv"](x)) + n["conv"](x), conv=_conv(3, 4, 3), norm=nn.BatchNorm2d(4)
    ),
    "one-opening-for-two": lambda: Module(
        lambda n, x: torch.relu(n["a"](x)) + n["b"](x), a=_conv(3, 4, 3, padding=1), b=_conv(3, 4, 1, bias=False)
    ),
    "clip": lambda: nn.Sequential(_conv(3, 4, 3, stride=2), nn.Hardtanh(-0.25, 0.125)),
    "relu6-depthwise": lambda: nn.Sequential(_conv(3, 6, 3, groups=3), nn.ReLU6(), _conv(6, 4, 1)),
    "dilated": lambda: nn.Sequential(_conv(3, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), nn.ReLU()),
    "average-pool": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), _conv(3, 4, 1), nn.AdaptiveAvgPool2d(2)),
    "max-pool": lambda: nn.Sequential(_conv(3, 4, 1), nn.MaxPool2d(3, 2, 1)),
    "max-pool-input": lambda: nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(96, 3)),
    "concat-mixed": lambda: Module(lambda n, x: torch.relu(torch.cat([n["a"](x), x], 1)), a=_conv(3, 2, 1)),
    "concat-short": lambda: Module(
        lambda n, x: n["b"](torch.cat([n["a"](x), x], 1)), a=_conv(3, 2, 1), b=_conv(5, 2, 1)
    ),
    "products": lambda: Module(lambda n, x: n["a"](x) * x.square(), a=_conv(3, 3, 1)),
    "scalars": lambda: Module(lambda n, x: (2.5 * x - 0.75) / 4 + 1.0 * n["a"](x).relu(), a=_conv(3, 3, 1)),
    "means": lambda: Module(
        lambda n, x: n["a"](x.mean((2, 3))) - x.mean(2, keepdim=True).flatten(1)[:, :4], a=nn.Linear(3, 4)
    ),
    "tokens": lambda: Module(
        lambda n, x: n["b"](n["a"](x.flatten(2).transpose(1, 2)).relu()).select(1, 3),
        a=nn.Linear(3, 5),
        b=nn.Linear(5, 2),
    ),
    "shortcut-a": lambda: Module(
        lambda n, x: torch.relu(n["a"](x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))), a=_conv(3, 6, 3, 2, 1)
    ),
    "read-long-and-short": lambda: Module(
        lambda n, x: n["b"](n["a"](x)) + torch.relu(n["a"](x) - 0.5), a=_conv(3, 4, 1), b=_conv(4, 4, 1)
    ),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_equals_the_reference_in_bits_and_the_float_network_closely(name):
    checked(seeded(PIECES[name]), (3, 8, 8), tolerance=5e-4)


class Buffers(nn.Module):
    """Constants of every shape that broadcasts."""

    def __init__(self):
        super().__init__()
        self.register_buffer("row", torch.linspace(0.5, 2, 8))
        self.register_buffer("channel", torch.tensor([1.0, -2.0, 0.5]).reshape(3, 1, 1))

    def forward(self, x):
        return ((x - self.channel) * self.row / self.channel + self.row).relu() * self.channel - self.channel


def test_constants_of_the_model_are_secrets_that_broadcast():
    module = Buffers()
    checked(module, (3, 8, 8), tolerance=1e-3)
    lowered = lower(capture(module, (3, 8, 8)))
    assert sorted(s.shape for s in lowered.plan.secrets) == [(3, 1, 1)] * 4 + [(8,)] * 2
    assert "2.0" not in repr(lowered)


@pytest.mark.parametrize(
    ("ring", "layout"),
    [(Ring(64, 12), Layout(40, 4, 8)), (Ring(64, 20), Layout(40, 8, 4)), (Ring(64, 16), Layout(24, 1, 2))],
)
def test_other_formats_and_comparisons(ring, layout):
    run = checked(seeded(lenet), (1, 28, 28), 1, 2e-2, lenet_network(), ring=ring, layout=layout)
    assert {layout.rounds + 2} == {row.online.rounds for row in run.declared.rows if row.operator == "relu"}


def test_a_densely_connected_network():
    checked(seeded(lambda: densenet(depth=7, growth=4)), (3, 8, 8), 1)


@pytest.mark.slow
def test_a_mobile_network():
    checked(seeded(lambda: mobilenet_v2(width=0.25, classes=10)), (3, 32, 32), 1, 1e-2)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_random_chains_of_layers(data):
    channels, layers = 2, []
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["conv", "relu", "norm", "max", "mean", "clip"]))
        if kind == "conv":
            outputs, kernel = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3]))
            layers.append(nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=data.draw(st.booleans())))
            channels = outputs
        else:
            pieces = {"relu": nn.ReLU(), "clip": nn.ReLU6(), "norm": nn.BatchNorm2d(channels)}
            layers.append((pieces | {"max": nn.MaxPool2d(2, 1, 1), "mean": nn.AvgPool2d(2, 1, 1)})[kind])
    module = seeded(lambda: nn.Sequential(*layers, nn.Conv2d(channels, 2, 1), nn.Flatten()))
    network, x = capture(module, (2, 5, 4)), drawn((2, 5, 4), 1)
    lowered = lower(network)
    dealer = Dealer(lowered.plan.ring)
    run = simulate(lowered, x, dealer=dealer)
    masks = dealt_masks(dealer, dealer.ring, lowered.plan.demands, len(lowered.plan.setup))
    np.testing.assert_array_equal(run.answer, compute(lowered.plan, lowered.model, x, masks))
    np.testing.assert_allclose(run.answer, module(torch.from_numpy(x)).detach().numpy(), atol=1e-3)
    assert run.agrees


def test_known_costs():
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    table = cost_table(lower(capture(module, (1, 4, 4))).plan)
    rows = {row.operator: row for row in table.rows}
    # 16 inputs opened; 8 windows of 4 in 2 levels at 36 fraction bits: 8 bytes, 26 comparison bits, 1 choice each;
    # 8 rectified values: 8 bytes, 15 comparison bits and 1 choice each.
    assert rows["conv2d"].online == Cost(16 * 8, 1)
    assert rows["conv2d"].setup == Cost(18 * 8, 1)
    assert rows["conv2d"].offline == 32 * 8
    assert rows["max_pool2d"].online == Cost(16 * 8 + 27 * 2 + 8 * 8 + 27, 8)
    assert rows["relu"].online == Cost(8 * 8 + 16, 4)
    assert rows["linear"].online == Cost(8 * 8, 1)
    assert rows["result"].online == Cost(3 * 8, 1)
    assert table.online == Cost(128 + 273 + 80 + 64 + 24, 15)
    assert table.setup == Cost((18 + 24) * 8, 1)
    assert table.seconds(WAN) == pytest.approx(569 * 8 / 1e8 + 15 * 0.04)
    shown = table.to_json(LAN)
    assert shown["total"]["bytes"] == sum(row["bytes"] for row in shown["rows"]) == 569
    assert shown["total"]["seconds"] == pytest.approx(sum(row["seconds"] for row in shown["rows"]))
    assert [line.split(":")[0] for line in shown["advice"]] == ["max_pool2d"]
    assert list(table.by_operator()) == ["max_pool2d", "conv2d", "relu", "linear", "result", "reshape"]


def test_batches_cost_in_proportion_and_the_weights_once():
    network = lenet_network()
    # Bits are packed to bytes, so that proportion is exact for multiples of 8 records only.
    eight, sixteen = (cost_table(lower(network, n).plan) for n in (8, 16))
    assert sixteen.online == Cost(2 * eight.online.bytes, eight.online.rounds)
    assert sixteen.setup == eight.setup
    assert sixteen.offline == 2 * eight.offline
    assert sixteen.offline_setup == eight.offline_setup == 0


def test_traffic_of_no_step_is_refused():
    plan = lower(capture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))).plan
    for stray in ({"9:linear": Traffic(8, 8)}, {"1:linear": Traffic(8, 16)}):
        with pytest.raises(ProtocolError, match="no step declares"):
            metered(plan, Reading({}), Reading(stray), {})


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
    module = seeded(NETS["resnet-8"][0])
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


def test_values_out_of_range_are_named():
    lowered = lower(capture(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2)), (1, 4, 4)))
    for weight, wrong in ((2.0**13, []), (2.0**14, ["1:2.max_pool2d"]), (2.0**15, ["1:2.max_pool2d", "2:1.relu"])):
        model = {name: np.full_like(t, weight if t.ndim == 4 else 0) for name, t in lowered.model.items()}
        ones = np.ones((1, 1, 4, 4), np.float32)
        if wrong:
            with pytest.raises(OutOfRange) as caught:
                check_range(lowered.plan, model, ones)
            assert [part.split(" ")[0] for part in caught.value.came.split(", ")] == wrong
        else:
            assert max(check_range(lowered.plan, model, ones).values()) == 0.5


def dealt(lowered, batches=1):
    return [*lowered.plan.setup, *lowered.plan.demands * batches]


def test_one_session_answers_several_batches_and_no_request_twice():
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)))
    lowered = lower(capture(module, (1, 3, 3)), 3)
    batches = [drawn((1, 3, 3), 3, seed) for seed in (1, 2)]

    def program(party, supply):
        session = Session(party, lowered.plan, supply, None if party.first else lowered.model)
        requests = [session.prepare() for _ in batches]
        answers = [session.run(r, x if party.first else None) for r, x in zip(requests, batches, strict=True)]
        assert len(supply) == 0
        with pytest.raises(TupleReusedError, match="run before"):
            session.run(requests[0], batches[0] if party.first else None)
        return answers

    outcome = rehearse(lowered.plan.ring, dealt(lowered, 2), program)
    assert outcome.results[1] == [None, None]
    for x, answer in zip(batches, outcome.results[0], strict=True):
        np.testing.assert_allclose(answer, module(torch.from_numpy(x)).detach().numpy(), atol=1e-3)
    # The model's owner is sent zeros in place of the answer.
    assert not any(m.array.any() for m in outcome.received[1] if m.label == "result")


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_what_a_party_receives_is_uniform_whatever_the_secrets(fill):
    lowered = lower(lenet_network())
    model = {name: np.full_like(t, fill / 64) for name, t in lowered.model.items()}
    x = np.full((1, 1, 28, 28), fill, np.float32)

    def program(party, supply):
        session = Session(party, lowered.plan, supply, None if party.first else model)
        session.run(session.prepare(), x if party.first else None)

    outcome = rehearse(lowered.plan.ring, dealt(lowered), program)
    for received in outcome.received:
        seen = [m.array.view(np.uint8) for m in received if m.array.dtype == np.uint64 and m.label != "result"]
        counts = np.bincount(np.concatenate([part.reshape(-1) for part in seen]), minlength=256)
        expected = counts.sum() / 256
        # 255 degrees of freedom: mean 255, deviation 22.6; 8 deviations make a false alarm rarer than 1e-9.
        assert counts.sum() > 100_000
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 8 * 22.6


def test_wrong_roles_and_shapes_are_refused_before_anything_is_sent():
    lowered = lower(capture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2)))
    plan, supplies = lowered.plan, Dealer(Ring()).supplies(dealt(lowered))

    def program(party):
        wrong_model = {name: t[:1] for name, t in lowered.model.items()}
        with pytest.raises(ConfigError, match="belongs to the second"):
            Session(party, plan, supplies[party.number], lowered.model if party.first else None)
        with pytest.raises(ConfigError, match="differ in the ring"):
            Session(
                Party(party.number, Ring(64, 12), party.link),
                plan,
                supplies[party.number],
                None if party.first else lowered.model,
            )
        if not party.first:
            with pytest.raises(ConfigError, match="2 tensors of the model do not fit"):
                Session(party, plan, supplies[1], wrong_model)
        assert party.link.meter.reading().sent == 0
        session = Session(party, plan, supplies[party.number], None if party.first else lowered.model)
        request, sent = session.prepare(), party.link.meter.reading().sent
        with pytest.raises(ConfigError, match="belong to the first"):
            session.run(request, None if party.first else np.zeros((1, 1, 2, 2)))
        if party.first:
            with pytest.raises(DataError, match="do not fit the plan"):
                session.run(request, np.zeros((2, 1, 2, 2)))
            with pytest.raises(DataError, match="do not fit the ring"):
                session.run(request, np.full((1, 1, 2, 2), np.nan))
        assert party.link.meter.reading().sent == sent
        return session.run(request, np.ones((1, 1, 2, 2)) if party.first else None)

    assert run_two(plan.ring, program).results[0].shape == (1, 2)


def test_equal_plans_have_equal_digests_and_say_nothing_of_the_weights():
    network = lenet_network()
    plan, other = lower(network).plan, lower(network.with_tensors(lenet().state_dict())).plan
    assert plan.digest == lower(network).plan.digest == other.digest
    assert plan.digest != lower(network, 2).plan.digest


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "weights").exists(), reason="no published weights in EDGEWARD_DATA")
def test_the_pretrained_resnet20_gives_the_labels_of_the_float_network():
    module = pretrained("resnet20_cifar10", root=DATA).eval()
    with Image.open(DATA / "cifar10" / "test_00.webp") as sheet:
        tiles = np.asarray(sheet.convert("RGB"))[:32, : 32 * 8].reshape(32, 8, 32, 3)
    x = np.ascontiguousarray(tiles.transpose(1, 3, 0, 2).astype(np.float32) / 255)
    network = capture(module, (3, 32, 32))
    lowered, dealer = lower(network, len(x)), Dealer(Ring())
    check_range(lowered.plan, lowered.model, x)
    run = simulate(lowered, x, dealer=dealer)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    assert run.agrees
    masks = dealt_masks(dealer, dealer.ring, lowered.plan.demands, len(lowered.plan.setup))
    np.testing.assert_array_equal(run.answer, compute(lowered.plan, lowered.model, x, masks))
    np.testing.assert_array_equal(run.answer.argmax(1), right.argmax(1))
    np.testing.assert_allclose(run.answer, right, atol=2e-2)


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
