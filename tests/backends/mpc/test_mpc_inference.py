"""Networks on secret input: answers against the integer reference and the float network, traffic against the plan."""

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

from backends.mpc.whole_runs import Module, checked, drawn, lenet_network, seeded
from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.expense import cost_table, metered
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import OutOfRange, check_range, compute, dealt_masks
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.party import ProtocolError
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.transport.meter import Reading, Traffic
from edgeward.backends.mpc.transport.network import LAN, WAN
from edgeward.graph import capture
from edgeward.nets import densenet, lenet, mobilenet_v2, pretrained, resnet, resnet_tiny

DATA = Path(os.environ.get("EDGEWARD_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data")


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
