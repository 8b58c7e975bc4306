"""The cost vector: additive, monotone, never without provenance; predictions against published board results."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_networks import Stack, autoencoder, ds_cnn, lenet, mobilenet_v1_quarter, mobilenet_v2, resnet8

from edgeward.core.cost import UNITS, Cost
from edgeward.devices import Figure, devices, load_profile
from edgeward.graph import capture, fold_batch_norm
from edgeward.measure.cost import fits, layer_table, network_cost
from edgeward.measure.energy import arithmetic_energy_joules_45nm, board_energy_joules
from edgeward.measure.form import device_form
from edgeward.measure.prediction import predict_latency
from edgeward.measure.work import Work

# inferences per second and microjoules per inference, MLPerf Tiny v1.2 closed, X-CUBE-AI 9.0
MLPERF = [
    ("cortex-m4", "ic", 6.056, 6919.375),
    ("cortex-m4", "vww", 11.245, 3894.566),
    ("cortex-m4", "kws", 23.155, 1820.454),
    ("cortex-m4", "ad", 190.086, 203.368),
    ("cortex-m7", "ic", 24.483, 5090.283),
    ("cortex-m7", "vww", 42.009, 2965.461),
    ("cortex-m7", "kws", 88.356, 1375.599),
    ("cortex-m7", "ad", 816.004, 165.728),
    ("cortex-m33", "ic", 9.003, 2578.969),
    ("cortex-m33", "vww", 16.87, 1354.685),
    ("cortex-m33", "kws", 34.416, 656.163),
    ("cortex-m33", "ad", 291.589, 81.875),
]
MODELS = {"ic": resnet8, "vww": mobilenet_v1_quarter, "kws": ds_cnn, "ad": autoencoder}


@pytest.mark.parametrize(("board", "model", "rate", "microjoule"), MLPERF)
def test_predictions_meet_published_board_results(board, model, rate, microjoule):
    device = load_profile(board)
    cost, _ = network_cost(MODELS[model](), device)
    # the keyword spotter took no part in setting the rates; its first layer has one input channel and runs slower
    tolerance = 0.3 if model == "kws" else 0.1
    assert cost.value("device_latency_seconds") * rate == pytest.approx(1, abs=tolerance)
    assert cost.value("energy_joules") / (microjoule * 1e-6) == pytest.approx(1, abs=tolerance + 0.05)


def test_lenet_cost_by_hand():
    cost, layers = network_cost(lenet(), load_profile("cortex-m4"), file_bytes=250_000)
    assert cost.value("macs") == 416_520
    assert cost.value("parameters") == cost.value("nonzeros") == 61_706
    assert cost.value("weight_bytes") == 246_824
    assert cost.value("ace") == cost.value("bit_operations") == 1024 * 416_520
    assert cost.value("cpu64_classic") == 416_520
    assert cost.value("cpu64_lane") == 208_260
    # the pooling reads 6x28x28 and writes 6x14x14; the first convolution needs less
    assert cost.value("peak_ram_bytes") == 4 * (6 * 784 + max(784, 6 * 196))
    assert cost["file_bytes"].provenance == "measured"
    assert [layer.operator for layer in layers] == ["conv2d", "conv2d", "linear", "linear", "linear"]


def test_every_quantity_has_a_unit_a_provenance_and_a_source():
    for name in devices():
        cost, _ = network_cost(resnet8(), load_profile(name), file_bytes=80_000)
        for key, quantity in cost.items():
            assert quantity.unit == UNITS[key]
            assert quantity.source
        assert {k for k, q in cost.items() if q.provenance == "modelled"} == {
            "peak_ram_bytes", "device_latency_seconds", "energy_joules",
        }  # fmt: skip
        assert {k for k, q in cost.items() if q.provenance == "measured"} == {"file_bytes"}
        assert name in cost["device_latency_seconds"].source
        assert f"factor {load_profile(name).band.value:g}" in cost["device_latency_seconds"].source
        assert Cost.from_json(cost.to_json()) == cost


LAYER = st.tuples(st.sampled_from(["conv", "pointwise", "depthwise"]), st.sampled_from([4, 8]), st.booleans())
PRECISION = st.sampled_from([None, (8, 8), (4, 8), "binary"])


def stacked(layers, precision):
    stack = Stack(4, 8, 8)
    for kind, out, norm in layers:
        if kind == "depthwise":
            stack.depthwise(precision=precision)
        else:
            stack.conv(out, 3 if kind == "conv" else 1, precision=precision)
        stack = stack.norm() if norm else stack.same("relu")
    return stack.global_pool().flatten().linear(3, precision=precision).network()


@settings(max_examples=25, deadline=None)
@given(st.lists(LAYER, max_size=5), PRECISION, st.sampled_from(["cortex-m4", "rpi4"]))
def test_rows_add_up_to_the_totals(layers, precision, board):
    network, device = stacked(layers, precision), load_profile(board)
    cost, rows = network_cost(network, device)
    assert sum(row.macs for row in rows) == cost.value("macs")
    assert sum(row.weight_bytes for row in rows) == cost.value("weight_bytes")
    assert sum(row.ace for row in rows) == cost.value("ace")
    prediction = predict_latency(network, device)
    assert sum(prediction.seconds.values()) == pytest.approx(cost.value("device_latency_seconds"))
    assert set(prediction.seconds) == {node.name for node in network.nodes}
    assert rows == layer_table(network, device_form(network, device).stored)


@settings(max_examples=25, deadline=None)
@given(st.lists(LAYER, max_size=5), st.sampled_from(["cortex-m4", "cortex-m7", "rpi4", "phone-cpu"]))
def test_fewer_bits_never_cost_more(layers, board):
    device = load_profile(board)
    forms = {p: network_cost(stacked(layers, p), device)[0] for p in (None, (8, 8), (4, 8), (4, 4), "binary")}
    # integers of 8 bits run as C on a microcontroller, which plans its memory; fewer are compared with their own kind
    chains = [(None, (8, 8), (4, 8)), (None, (4, 4), "binary")] if device.kind == "mcu" else [tuple(forms)]
    for chain in chains:
        _fall([forms[p] for p in chain], device)


def _fall(costs, device):
    names = ["ace", "bit_operations", "cpu64_lane", "peak_ram_bytes"]
    # elsewhere float32 convolutions run by Winograd's algorithm, which can beat int8
    names += ["device_latency_seconds", "energy_joules"] if device.kind == "mcu" else []
    for name in names:
        values = [cost.value(name) for cost in costs]
        assert values == sorted(values, reverse=True), name
    assert len({cost.value("macs") for cost in costs}) == 1


@settings(max_examples=15, deadline=None)
@given(st.floats(1.1, 10), st.sampled_from(devices()))
def test_a_faster_device_is_never_slower(factor, name):
    device, network = load_profile(name), resnet8()
    rates = {p: {c: f.scaled(factor, "faster") for c, f in row.items()} for p, row in device.mac_per_second.items()}
    faster = replace(device, mac_per_second=rates, bytes_per_second=device.bytes_per_second.scaled(factor, "faster"))
    assert predict_latency(network, faster).total < predict_latency(network, device).total
    slower = replace(device, op_overhead_seconds=Figure(device.op_overhead_seconds.value * factor, "x", "derived"))
    assert predict_latency(network, slower).total > predict_latency(network, device).total


def test_weights_count_as_ram_only_where_there_is_no_flash():
    network = lenet()
    board, linux = (network_cost(network, load_profile(name))[0] for name in ("cortex-m4", "rpi4"))
    assert linux.value("peak_ram_bytes") == board.value("peak_ram_bytes") + board.value("weight_bytes")
    assert "weights" in linux["peak_ram_bytes"].source


def test_fits():
    device = load_profile("cortex-m4")
    small, _ = network_cost(lenet(), device)
    assert fits(small, device) == []
    large, _ = network_cost(mobilenet_v2(), device, file_bytes=14_000_000)
    problems = fits(large, device)
    assert len(problems) == 2
    assert "file_bytes is 13.4 MiB, but cortex-m4 has 2.0 MiB of flash" in problems[0]
    assert "RAM" in problems[1]
    exactly = Cost().adding("measured", file_bytes=device.flash_bytes.value)
    assert fits(exactly, device) == []
    assert fits(exactly.adding("measured", file_bytes=device.flash_bytes.value + 1), device)


def test_energy_is_power_times_time_for_boards_with_a_power():
    assert board_energy_joules(2.0, load_profile("rpi4")).value == 2.0 * load_profile("rpi4").power_watt.value


def test_energy_per_int8_convolution_mac_is_the_profile_s_own():
    device = load_profile("cortex-m7")
    seconds = 1e6 / device.rate("int8", "conv").value
    assert board_energy_joules(seconds, device).value == pytest.approx(1e6 * device.picojoule_per_mac.value * 1e-12)


def test_the_45nm_floor_lies_far_below_every_board():
    work = [Work(1, bits, bits) for bits in (32, 8, 1)]
    picojoules = [arithmetic_energy_joules_45nm([w]) * 1e12 for w in work]
    assert picojoules[:2] == pytest.approx([4.6, 0.23])
    assert 0 < picojoules[2] < 0.01
    for name in ("cortex-m4", "cortex-m7", "cortex-m33"):
        assert load_profile(name).picojoule_per_mac.value > 500 * picojoules[1]


def test_source_names_the_weakest_basis_used():
    device = load_profile("cortex-m4")
    measured = {"int8": {c: Figure(1e8, "own board", "measured") for c in ("conv", "pointwise", "linear")}}
    fine = replace(
        device,
        mac_per_second=measured,
        bytes_per_second=Figure(1e8, "own board", "measured"),
        op_overhead_seconds=Figure(1e-5, "own board", "measured"),
    )
    assert predict_latency(resnet8(), fine).basis == "measured"
    assert predict_latency(mobilenet_v1_quarter(), fine).basis == "derived"  # depthwise is filled in by rule
    assert "derived figures" in network_cost(resnet8(), device)[0]["device_latency_seconds"].source


def test_a_captured_module_costs_what_the_written_network_costs():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 16, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(400, 120), torch.nn.ReLU(), torch.nn.Linear(120, 84), torch.nn.ReLU(), torch.nn.Linear(84, 10),
    )  # fmt: skip
    device = load_profile("cortex-m4")
    captured, written = (network_cost(n, device)[0] for n in (capture(module.eval(), (1, 28, 28)), lenet()))
    assert {name: q.value for name, q in captured.items()} == {name: q.value for name, q in written.items()}
    assert captured.value("parameters") == sum(p.numel() for p in module.parameters())


def test_folding_normalisation_saves_bytes_and_no_time():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    network, device = capture(module.eval(), (3, 8, 8)), load_profile("cortex-m4")
    before, after = (network_cost(n, device)[0] for n in (network, fold_batch_norm(network)))
    assert before.value("weight_bytes") == after.value("weight_bytes") + 4 * 24
    assert before.value("parameters") == after.value("parameters") + 8
    for name in ("macs", "device_latency_seconds", "peak_ram_bytes"):
        assert before.value(name) == pytest.approx(after.value(name), rel=1e-3)


def test_mobilenet_v2_of_the_nets_room_has_the_published_cost():
    nets = pytest.importorskip("edgeward.nets", reason="the reference networks are not built")
    if "mobilenet_v2" not in getattr(nets, "NETS", {}):
        pytest.skip("there is no reference MobileNetV2")
    network = capture(nets.NETS["mobilenet_v2"](classes=1000).eval(), (3, 224, 224))
    cost, _ = network_cost(network, load_profile("rpi4"))
    assert cost.value("parameters") == 3_504_872
    assert cost.value("macs") == 300_774_272


@pytest.mark.parametrize(("transform", "bits"), [("PostTraining", {8}), ("Binarize", {1, 32})])
def test_transformed_modules_are_counted_at_their_own_widths(transform, bits):
    transforms, nets = pytest.importorskip("edgeward.transforms"), pytest.importorskip("edgeward.nets")
    module = getattr(transforms, transform)().apply(nets.NETS["mlp"](600))
    network, device = capture(module.eval(), (600,)), load_profile("cortex-m7")
    plain, _ = network_cost(capture(nets.NETS["mlp"](600).eval(), (600,)), device)
    cost, rows = network_cost(network, device)
    assert {row.weight_bits for row in rows if row.macs} == bits
    assert cost.value("macs") == plain.value("macs")
    for name in ("ace", "weight_bytes", "peak_ram_bytes", "device_latency_seconds", "energy_joules"):
        assert cost.value(name) < plain.value(name)
    assert (cost.value("binary_weights") > 0) == (1 in bits)
