"""Split deployments: halves that fit, answers equal to the integer reference, releases as files, and the checklist."""

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tee.tee_split import backbone, records, split, tampered
from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.backends.tee.assets import ADVERSARIES, ASSETS, PHASES, AssetMatrix, Protection, one_way_split
from edgeward.backends.tee.checklist import Evidence, checklist
from edgeward.backends.tee.deployment import SplitDeployment, Traffic
from edgeward.backends.tee.manifest import SplitManifest, manifest_of
from edgeward.backends.tee.release import MANIFEST, NORMAL, SEALED, RunningSplit, SplitRelease, release
from edgeward.backends.tee.sealing import Refusal, SealedBlobError, new_key
from edgeward.backends.tee.split_executable import split_executable
from edgeward.backends.tee.world import SecureMemoryExceeded
from edgeward.codegen.quantize import to_int8
from edgeward.codegen.reference import run
from edgeward.core.errors import CompositionError, ConfigError, VerificationFailed
from edgeward.graph import Network

KEY = new_key()


def float_taps():
    return ReferenceExecutable(backbone()).run_all(records())


def expected_logits():
    deployment = split(argmax=False)
    pairs = zip(deployment.tap_values, float_taps(), strict=False)
    inputs = {value.name: to_int8(value, tap) for value, tap in pairs}
    return run(deployment.secure, inputs)[deployment.secure.outputs[0]].reshape(len(records()), -1)


def test_the_reference_answers_with_labels_or_logits_as_the_policy_says():
    logits = expected_logits()
    labels = split_executable(split()).labels(records())
    np.testing.assert_array_equal(labels, logits.argmax(1))
    one_hot = split_executable(split()).run(records())
    assert one_hot.shape == (12, 10)
    np.testing.assert_array_equal(one_hot.argmax(1), labels)
    assert set(np.unique(one_hot)) == {0.0, 1.0}
    np.testing.assert_array_equal(split_executable(split(argmax=False)).labels(records()), labels)
    value = split("logits", False).border.logits
    real = split_executable(split("logits", False)).run(records())
    np.testing.assert_allclose(real, (logits.astype(np.float32) - value.zero_point) * value.scale, rtol=1e-6)
    ranked = split_executable(split("topk", False)).run(records())
    assert set(np.unique(ranked)) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    np.testing.assert_array_equal(ranked.argmax(1), labels)


def test_the_reference_tier_says_that_it_isolates_nothing():
    executable = split_executable(split())
    assert executable.tier == "reference"
    assert "no isolation" in executable.notice


def test_traffic_and_the_normal_world_alone():
    deployment = split()
    sent = 8 * 16 * 16 + 16 * 8 * 8
    assert deployment.traffic == Traffic(True, 1, sent, 4)
    assert replace(deployment, transfer="stream").traffic == Traffic(True, 2, sent, 4)
    assert split("logits", False).traffic.returned_bytes == 10
    assert split("topk", False).traffic.returned_bytes == 20
    direct = deployment.direct
    np.testing.assert_array_equal(ReferenceExecutable(direct).run(records()), float_taps()[2])
    taps_only = replace(deployment, normal=replace(backbone(), outputs=backbone().outputs[:2]))
    assert taps_only.direct is None
    assert deployment.strategy_digest() == split().strategy_digest()
    assert deployment.strategy_digest() != replace(deployment, transfer="stream").strategy_digest()


def test_halves_that_do_not_fit_are_refused_with_every_reason():
    good = split()
    swapped = replace(backbone(), outputs=(backbone().outputs[1], backbone().outputs[0]))
    with pytest.raises(CompositionError) as caught:
        replace(good, normal=swapped, policy="topk")
    for part in ("is (8, 8, 16)", "is (16, 16, 8)", "policy 'topk'", "argmax"):
        assert part in str(caught.value)
    with pytest.raises(CompositionError, match="1 outputs of the normal world for 2 inputs"):
        replace(good, normal=replace(backbone(), outputs=backbone().outputs[:1]))
    with pytest.raises(CompositionError, match="it has a label to give"):
        replace(good, policy="logits")


def test_a_normal_world_that_only_passes_the_record_on():
    network = backbone()
    passing = Network(network.inputs, network.inputs, (), {network.inputs[0]: network.values[network.inputs[0]]}, {})
    from codegen_networks import quantised

    whole = quantised("resnet", True)
    shape = whole.network.input_shape()
    value = replace(network.values[network.inputs[0]], shape=shape)
    passing = replace(passing, values={network.inputs[0]: value})
    deployment = SplitDeployment("whole", passing, whole.graph)
    (x,) = whole.records.values()
    found = split_executable(deployment).labels(x)
    given_ = {deployment.secure.inputs[0]: to_int8(deployment.tap_values[0], x)}
    output = run(whole.graph, given_)[whole.graph.outputs[0]]
    np.testing.assert_array_equal(found, np.ascontiguousarray(output).view("<i4").ravel())
    assert len(release(deployment, KEY, 0).files[NORMAL]) > 0


@pytest.fixture(scope="module")
def wasm():
    pytest.importorskip("wasmtime")
    from edgeward.backends.tee.wasm_world import WasmWorld

    return WasmWorld(KEY)


@pytest.mark.parametrize(("policy", "argmax"), [("label", True), ("label", False), ("topk", False), ("logits", False)])
def test_a_release_from_files_answers_as_the_reference(tmp_path, wasm, policy, argmax):
    deployment = split(policy, argmax)
    release(deployment, KEY, 4).write(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
    with RunningSplit(SplitRelease.read(tmp_path), wasm) as running:
        executable, meter, traffic = running.executable, running.session.meter, deployment.traffic
        loaded = meter.bytes_in, meter.bytes_out
        np.testing.assert_array_equal(executable.run(records()), split_executable(deployment).run(records()))
        np.testing.assert_array_equal(executable.labels(records()), expected_logits().argmax(1))
        assert executable.tier == "wasm"
        assert "emulated" in executable.notice
        moved = meter.bytes_in - loaded[0], meter.bytes_out - loaded[1]
        assert moved == (24 * traffic.bytes, 24 * traffic.returned_bytes)


def test_a_stream_enters_as_often_as_its_manifest_says(wasm):
    deployment = replace(split(), transfer="stream")
    with RunningSplit(release(deployment, KEY, 1), wasm) as running:
        before = running.session.meter.switches
        np.testing.assert_array_equal(running.executable.labels(records()), expected_logits().argmax(1))
        assert running.session.meter.switches - before == len(records()) * deployment.traffic.switches == 24


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    release(split(), KEY, 1).write(tmp_path)
    (tmp_path / SEALED).unlink()
    os.mkfifo(tmp_path / SEALED)
    with pytest.raises(VerificationFailed, match=r"weights\.sealed"):
        SplitRelease.read(tmp_path)


def test_c_text_in_folders_is_refused(tmp_path):
    ours = release(split(), KEY, 1)
    nested = {**ours.files, "secure-world/deep/more.c": b""}
    manifest = manifest_of(split(), nested, ours.manifest.sizes, 1)
    replace(ours, manifest=manifest, files=nested).write(tmp_path)
    with pytest.raises(VerificationFailed, match="C text in folders"):
        SplitRelease.read(tmp_path)


def test_the_device_counter_refuses_what_is_older(tmp_path, wasm):
    from edgeward.backends.tee.rollback import RollbackCounter

    counter = RollbackCounter(tmp_path / "demo.counter", KEY, "demo")
    with RunningSplit(release(split(), KEY, 5), wasm, counter):
        pass
    assert counter.floor() == 5
    with pytest.raises(SealedBlobError) as caught:
        RunningSplit(release(split(), KEY, 4), wasm, counter)
    assert caught.value.reason is Refusal.OLDER_COUNTER
    assert counter.floor() == 5


def test_evidence_covers_what_runs(tmp_path, wasm):
    pytest.importorskip("cwt")
    from edgeward.backends.tee.device_storage import DeviceStorage
    from edgeward.backends.tee.evidence import EvidenceError, issue, measure, verify

    def measured(split_release):
        application = wasm.build(split_release.application()).read_bytes()
        return measure(application, split_release.sealed, split_release.manifest.digest(), wasm.tier)

    ours = release(split(), KEY, 1)
    private, public = DeviceStorage(tmp_path).attestation_key()
    token = issue(measured(ours), b"n" * 16, b"device-7", private)
    verify(token, public, b"n" * 16, measured(ours), accept_emulated=True)
    with pytest.raises(EvidenceError, match="sealed"):
        verify(token, public, b"n" * 16, measured(release(split(), KEY, 1)), accept_emulated=True)
    other = measured(release(split("logits", False), KEY, 1))
    with pytest.raises(EvidenceError, match="application, sealed, manifest"):
        verify(token, public, b"n" * 16, other, accept_emulated=True)


def test_foreign_and_altered_weights_are_refused(wasm):
    good, other = release(split(), KEY, 1), release(replace(split(), name="other"), KEY, 1)
    reasons = {
        Refusal.FOREIGN_MANIFEST: other.sealed,
        Refusal.TAMPERED: good.sealed[:-1] + bytes([good.sealed[-1] ^ 1]),
        Refusal.TRUNCATED: good.sealed[:-1],
    }
    for reason, sealed in reasons.items():
        with pytest.raises(SealedBlobError) as caught:
            RunningSplit(replace(good, sealed=sealed), wasm)
        assert caught.value.reason is reason


def test_no_secret_is_in_the_clear_parts():
    one, two = release(split(), KEY, 1), release(tampered(split()), KEY, 1)
    assert one.files == two.files
    assert one.manifest == two.manifest
    assert one.sealed != two.sealed
    weights = next(t for t in split().secure.tensors.values() if t.dtype == np.int8 and t.size > 64)
    everything = b"".join(one.files.values()) + one.sealed + one.manifest.to_bytes()
    assert weights.tobytes() not in everything


def test_over_budget_is_refused_before_anything_is_sealed():
    with pytest.raises(SecureMemoryExceeded, match="TEE_ERROR_OUT_OF_MEMORY"):
        release(split(), KEY, 1, memory_budget=1000)


def test_changed_files_are_named(tmp_path):
    release(split(), KEY, 1).write(tmp_path)
    for name in (NORMAL, "secure-world/net.c"):
        path = tmp_path / name
        good = path.read_bytes()
        path.write_bytes(good + b" ")
        with pytest.raises(VerificationFailed, match=path.name):
            SplitRelease.read(tmp_path)
        path.write_bytes(good)
    (tmp_path / SEALED).unlink()
    with pytest.raises(VerificationFailed, match=r"weights\.sealed"):
        SplitRelease.read(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(VerificationFailed, match="manifest"):
        SplitRelease.read(tmp_path)


def test_declared_sizes_are_those_of_the_c_text(tmp_path):
    """Memory is taken by the manifest's sizes, so that a smaller arena than the network uses must not pass."""
    good = release(split(), KEY, 1)
    for sizes in ({"arena": 16}, {"weights": 16}):
        manifest = replace(good.manifest, sizes={**good.manifest.sizes, **sizes})
        replace(good, manifest=manifest).write(tmp_path)
        with pytest.raises(VerificationFailed, match="other sizes"):
            SplitRelease.read(tmp_path)
    rest = {name: digest for name, digest in good.manifest.files.items() if name != NORMAL}
    replace(good, manifest=replace(good.manifest, files=rest)).write(tmp_path)
    with pytest.raises(VerificationFailed, match="lacks parts"):
        SplitRelease.read(tmp_path)


def test_a_manifest_is_canonical_and_binds_everything_declared():
    manifest = release(split(), KEY, 3).manifest
    assert SplitManifest.from_bytes(manifest.to_bytes()) == manifest
    digest = manifest.digest()
    for change in (
        {"counter": 4},
        {"name": "x"},
        {"transfer": "stream"},
        {"border": replace(manifest.border, policy="logits", ends_in_argmax=False)},
        {"sizes": {**manifest.sizes, "budget": 1 << 20}},
        {"traffic": replace(manifest.traffic, switches=9)},
        {"assets": one_way_split(private_normal_world=False)},
        {"strategy": {"kind": "test", "width": 9}},
        {"files": {**manifest.files, NORMAL: "0" * 64}},
    ):
        assert replace(manifest, **change).digest() != digest


@cache
def manifest_bytes() -> bytes:
    return release(split(), KEY, 3).manifest.to_bytes()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 20), st.binary(max_size=6) | st.sampled_from([b"-1", b"null", b"1e999"]))
def test_mutated_manifests_are_read_or_refused(at, length, noise):
    good = manifest_bytes()
    changed = good[:at] + noise + good[at + length :]
    message = ""
    try:
        assert SplitManifest.from_bytes(changed).to_bytes() == changed
    except VerificationFailed as refused:
        message = str(refused)
    assert len(message) < 600


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"counter":3', b'"counter":-3'),
        (b'"counter":3', b'"counter":true'),
        (b'"normal-world/model.onnx"', b'"../model.onnx"'),
        (b'"policy":"label"', b'"policy":"all"'),
        (b'"classes":10', b'"classes":"10"'),
        (b'"one_way":true', b'"one_way":1'),
        (b'"schema":"edgeward.split/1"', b'"schema":"edgeward.split/2"'),
        (b'"zero_point":', b'"zero_point":9999, "x":'),
    ],
)
def test_each_impossible_declaration_is_refused(old, new):
    good = manifest_bytes()
    assert old in good
    with pytest.raises(VerificationFailed, match="cannot be read"):
        SplitManifest.from_bytes(good.replace(old, new, 1))


def test_the_asset_matrix_answers_every_question_and_defaults_to_not_protected():
    rows = one_way_split().rows()
    assert len(rows) == len(ASSETS) * len(PHASES) * len(ADVERSARIES)
    answers = {row[:3]: row[3] for row in rows}
    assert answers["secure weights", "at rest", "normal-world reader"].startswith("protected: AES-256-GCM")
    assert answers["normal weights", "at rest", "normal-world reader"].startswith("not protected")
    assert answers["inputs", "in use", "normal-world reader"].startswith("not protected")
    assert answers["function", "in use", "authorised user"].startswith("audited")
    public = one_way_split(private_normal_world=False)
    assert public.cell("normal weights", "at rest", "normal-world reader").status == "out of scope"
    assert AssetMatrix.from_json(public.to_json()) == public


def test_an_asset_matrix_with_unknown_words_or_two_answers_is_refused():
    cell = Protection("inputs", "in use", "authorised user", "protected", "x")
    with pytest.raises(ConfigError, match="inputs / in use / authorised user twice"):
        AssetMatrix((cell, cell))
    good = AssetMatrix((cell,)).to_json()
    for wrong in ({**good["protections"][0], "asset": "soul"}, {}, None):
        with pytest.raises(ConfigError):
            AssetMatrix.from_json({**good, "protections": [wrong]})


def test_the_checklist_never_claims_what_nobody_showed():
    bare = checklist(split(), Evidence("no isolation"))
    assert [r.key for r in bare.requirements] == [f"R{i}" for i in range(1, 15)]
    assert bare.missing() == ("R2", "R3", "R4", "R5", "R6", "R7", "R8", "R12")
    full = checklist(
        split("logits", False),
        Evidence("emulated", 1 << 16, 1 << 20, 900, 30000, 4, "EAT", "1.02 x black box", "AUC 0.51", True),
    )
    assert full.missing() == ("R7",)
    rows = {key: answer for key, _, answer in full.rows()}
    assert rows["R3"] == "measured: 64.0 KiB of 1.0 MiB"
    assert "logits" in rows["R9"]
    assert "1 switches" in rows["R11"]
    assert "AUC 0.51" in rows["R8"]
