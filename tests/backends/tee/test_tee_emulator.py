"""The performance emulator: sums by hand, the pipeline against a simulation, and counts against the emitted C."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tee.tee_split import backbone, split
from codegen_networks import quantised
from edgeward.backends.tee.emulator import CODE_BYTES, Emulator, _makespan
from edgeward.backends.tee.instruction_model import InstructionModel, calibrated, features, fit, from_profile
from edgeward.backends.tee.normal_time import NormalTime, normal_time
from edgeward.backends.tee.release import release
from edgeward.backends.tee.sealing import new_key
from edgeward.backends.tee.secure_steps import SecureStep, steps_of
from edgeward.backends.tee.split_shape import SplitShape, shape_of, sketch
from edgeward.core.errors import CompositionError, ConfigError
from edgeward.devices import Figure, devices, load_profile
from edgeward.measure.prediction import predict_latency

RPI3, QEMU = load_profile("rpi3-optee"), load_profile("qemu-v8")
FLAT = InstructionModel({"add": {"calls": 1000.0}}, "assumed", "1000 instructions per operator")


def plain_profile():
    """A device whose sums are easy: 1 instruction per nanosecond, 1000 per switch, nothing else but copies."""
    world = QEMU.secure_world
    zero = Figure(0.0, "test", "assumed")
    world = replace(
        world,
        switch_instructions=Figure(1000, "test", "measured"),
        memref_instructions=zero,
        handover_instructions_per_element=zero,
        copy_instructions_per_byte=Figure(1.0, "test", "measured"),
    )
    return replace(QEMU, secure_world=world)


def test_a_batch_is_the_sum_of_its_terms():
    deployment = split()
    found = Emulator(plain_profile(), model=FLAT).estimate(deployment)
    operators = sum(node.operator != "reshape" for node in deployment.secure.nodes)
    sent = 8 * 16 * 16 + 16 * 8 * 8
    assert found.instructions == {"switch": 1000, "memref": 0, "copy": sent + 4, "secure": 1000 * operators}
    assert found.switches == 1
    assert found.bytes == sent
    taps_ready = found.seconds["normal"]
    assert 0 < taps_ready < found.seconds_normal
    assert found.seconds_total == pytest.approx(taps_ready + sum(found.instructions.values()) * 1e-9)
    assert found.overhead == pytest.approx(found.seconds_total / found.seconds_normal - 1)
    assert "T_normal" in found.definition
    assert found.basis == "assumed"


def test_saved_and_spent_terms_add_up_to_the_overhead_below_zero_too():
    """The secure world is so fast here that what the normal world leaves out weighs more."""
    emulator = Emulator(replace(plain_profile(), secure_world=_free_switch()), model=FLAT)
    for victim in (None, quantised("resnet").network):
        found = emulator.estimate(replace(shape_of(split()), victim=victim))
        spent = sum(seconds for term, seconds in found.seconds.items() if term != "normal")
        assert found.seconds_total - found.seconds_normal == pytest.approx(spent - sum(found.saved.values()))
        assert found.overhead == pytest.approx((spent - sum(found.saved.values())) / found.seconds_normal)
    assert found.overhead < 0 < found.saved["calls"]
    calls = found.saved["calls"] / plain_profile().op_overhead_seconds.value
    assert calls == pytest.approx(round(calls)), "a whole number of operators is not called"


def test_a_stream_enters_once_per_tap_and_never_answers_later_than_its_work_in_sequence():
    emulator = Emulator(plain_profile(), model=FLAT)
    batch, stream = emulator.estimate(split()), emulator.estimate(split(), "stream")
    assert stream.switches == 2
    assert stream.instructions["secure"] == batch.instructions["secure"]
    assert stream.instructions["copy"] == batch.instructions["copy"]
    extra = (stream.switches - batch.switches) * 1000e-9
    assert batch.seconds["normal"] < stream.seconds_total <= batch.seconds_total + extra
    # the work of the first tap hides behind the normal world
    free = Emulator(replace(plain_profile(), secure_world=_free_switch()), model=FLAT)
    assert free.estimate(split(), "stream").seconds_total < free.estimate(split()).seconds_total
    assert stream.period_seconds <= stream.seconds_total


def _free_switch():
    return replace(plain_profile().secure_world, switch_instructions=Figure(0.0, "test", "measured"))


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=6),
    st.booleans(),
)
def test_the_makespan_is_that_of_two_processors_simulated_step_by_step(taps, batch):
    taps = sorted(taps)
    names = tuple(f"t{i}" for i in range(len(taps)))
    ready = {name: float(tap[0]) for name, tap in zip(names, taps, strict=True)}
    work, handover = [tap[1] for tap in taps], [tap[2] for tap in taps]
    entries = [list(range(len(taps)))] if batch else [[i] for i in range(len(taps))]
    work = [sum(work)] if batch else work
    shape = SplitShape("x", backbone(), names, (1,) * len(taps), (), 0, 0, 0)
    found = _makespan(shape, NormalTime({}, ready, "measured"), entries, work, handover)

    clock, queue, busy, done, written = 0, [list(e) for e in entries], 0, 0, 0
    arrivals = []
    for i, name in enumerate(names):
        written += handover[i]
        arrivals.append(ready[name] + written)
    while done < len(entries):
        arrived = all(arrivals[i] <= clock for i in queue[done])
        if arrived and busy == 0:
            busy = work[done]
            if busy == 0:
                done += 1
                continue
        clock += 1
        if busy:
            busy -= 1
            done += busy == 0
    assert found == pytest.approx(clock)


def test_secure_memory_is_what_the_application_asks_for():
    deployment = split()
    found = Emulator(RPI3).estimate(deployment)
    application = release(deployment, new_key(), 0).application()
    outside = found.ram["code"] + found.ram["stack"]
    assert 0 <= application.needed_bytes - (found.secure_ram_bytes - outside) < 1024
    assert found.ram["code"] == CODE_BYTES.value
    assert found.secure_ram_limit == int(8 * 2**20 * 0.9)
    assert found.fits
    assert not Emulator(RPI3, secure_ram=1000).estimate(deployment).fits


def test_a_sketch_from_float_networks_foretells_the_quantised_split():
    deployment, monitor = split(argmax=False), quantised("monitor").network
    emulator = Emulator(RPI3)
    before, after = emulator.estimate(sketch("demo", backbone(), monitor)), emulator.estimate(deployment)
    assert before.bytes == after.bytes
    assert before.instructions["secure"] == pytest.approx(after.instructions["secure"], rel=0.05)
    assert before.ram["weights"] == pytest.approx(after.ram["weights"], rel=0.1)
    assert before.ram["arena"] <= after.ram["arena"]
    assert before.seconds_total == pytest.approx(after.seconds_total, rel=0.05)
    with pytest.raises(CompositionError, match="does not fit together"):
        sketch("demo", replace(backbone(), outputs=backbone().outputs[::-1]), monitor)


@pytest.mark.parametrize("name", ["lenet", "resnet", "monitor", "gated"])
def test_steps_of_a_float_network_are_those_of_its_integer_form(name):
    both = quantised(name)
    ours, theirs = steps_of(both.network), steps_of(both.graph)
    assert sum(s.macs for s in ours if s.weight_bytes) == sum(s.macs for s in theirs if s.weight_bytes)
    # padding of its own and gates are lowered to a little less than they look
    model = calibrated()
    assert model.total(ours) == pytest.approx(model.total(theirs), rel=0.2 if name == "gated" else 0.1)


def test_a_victim_changes_what_overheads_are_measured_against():
    shape = shape_of(split())
    emulator = Emulator(RPI3)
    own, against = emulator.estimate(shape), emulator.estimate(replace(shape, victim=quantised("resnet").network))
    assert own.seconds_total == against.seconds_total
    assert against.seconds_normal > own.seconds_normal
    assert against.overhead < own.overhead


def test_the_normal_world_takes_as_long_as_the_latency_prediction_says():
    for network in (backbone(), quantised("resnet").network):
        found = normal_time(network, RPI3)
        assert found.total == pytest.approx(predict_latency(network, RPI3).total, rel=0.02)
        times = [found.ready[node.output] for node in network.nodes]
        assert times == sorted(times)


@pytest.mark.parametrize("name", [n for n in devices() if load_profile(n).secure_world is not None])
def test_every_secure_world_profile_estimates_with_its_sources(name):
    found = Emulator(load_profile(name)).estimate(split())
    plain = found.to_json()
    assert plain["overhead"] == found.overhead
    assert plain["sources"]
    assert all(":" in source for source in plain["sources"])
    assert found.fits


def test_devices_without_a_secure_world_are_refused():
    with pytest.raises(ConfigError, match="no secure_world"):
        Emulator(load_profile("cortex-m4"))
    with pytest.raises(ConfigError, match="transfer"):
        Emulator(RPI3).estimate(split(), "later")


def test_a_fit_recovers_the_rule_that_made_the_counts():
    rng = np.random.default_rng(0)
    steps = [
        SecureStep(f"s{i}", "conv2d", o * d * p, d, p, p * d, o * p, 0, frozenset({0}))
        for i, (o, d, p) in enumerate(rng.integers(1, 200, (60, 3)).tolist())
    ]
    truth = from_profile(RPI3.secure_world)
    model = fit(steps, [truth.instructions(s) for s in steps], "made up", {"bytes": 0.5, "calls": 3})
    for step in steps:
        assert model.instructions(step) == pytest.approx(truth.instructions(step), rel=1e-3)
    assert model.copying(100, 2) == 56
    assert InstructionModel.from_json(model.to_json()) == model
    assert all(value >= 0 for row in model.coefficients.values() for value in row.values())
    with pytest.raises(ConfigError):
        InstructionModel.from_json({"x": 1})


@settings(max_examples=50)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_features_account_for_every_product(outputs, depth, pixels):
    step = SecureStep("s", "conv2d", outputs * depth * pixels, depth, pixels, 0, outputs * pixels, 0, frozenset())
    f = features(step)
    vectors = -(-depth // 16)
    if depth >= 16:
        tiles = 16 * f["tiles"] + 4 * f["narrow tiles"] + 4 * f["rows"] + f["dots"]
        assert tiles == outputs * pixels * vectors
        assert 4 * f["wide stores"] + f["narrow stores"] == outputs * pixels
    else:
        halves = 16 * f["half tiles"] + 4 * f["half narrow"]
        assert halves + f["short outputs"] == outputs * pixels


@pytest.mark.parametrize("name", ["lenet", "resnet", "monitor", "gated"])
def test_the_stored_calibration_fits_the_kernels_as_they_are(name):
    """Fails when kernels change: `python -m benchmarks.tee_emulator` calibrates anew."""
    pytest.importorskip("unicorn")
    from edgeward.codegen.arena import plan
    from edgeward.codegen.blob import pack
    from edgeward.codegen.emit import emit
    from edgeward.codegen.meter import count

    both = quantised(name)
    rows = [both.inputs[value][:1] for value in both.graph.inputs]
    counted = count(emit(both.graph, plan(both.graph)), rows, pack(both.graph)).total
    assert calibrated().total(steps_of(both.graph)) == pytest.approx(counted, rel=0.15)
