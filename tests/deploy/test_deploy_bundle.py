"""Bundles: written whole or not at all, and any changed byte of any file is found and named."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backends.operator_table import QuantizedLinear
from edgeward.backends import BACKENDS
from edgeward.core.errors import ConfigError, VerificationFailed
from edgeward.core.randomness import Seed
from edgeward.deploy import Bundle, Vectors, copy_bundle, synthetic_vectors, verify, write_bundle
from edgeward.deploy.digest import network_digest
from edgeward.deploy.folder import seal_line
from edgeward.deploy.manifest import Manifest
from edgeward.graph import capture

SHAPE = (1, 4, 4)


@functools.lru_cache
def network(seed=0, width=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 3))
    return capture(module.eval(), SHAPE)


@functools.lru_cache
def taken(backend, seed=0):
    """Return a network that `backend` takes: the one above, or one of integers."""
    if not BACKENDS[backend].reasons_against(network(seed)):
        return network(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), QuantizedLinear(16, 5, 8, 8), nn.ReLU(), QuantizedLinear(5, 3, 8, 8))
    return BACKENDS[backend].ready(capture(module.eval(), SHAPE), synthetic_vectors(SHAPE, 8, Seed(3)))


def write(folder, backend="packed", **changes):
    net = changes.pop("net", None) or taken(backend)
    artefact = changes.pop("artefact", None) or BACKENDS[backend].lower(net)
    x = synthetic_vectors(SHAPE, 3, Seed(1))
    vectors = changes.pop("vectors", None) or Vectors.answered_by(BACKENDS[backend].load(artefact), x)
    settings = {"card": "# Card\n", "report": {"a": 1.5}, "network": net, "classes": 3, "recipe": {"slug": "none"}}
    return write_bundle(folder, artefact=artefact, backend=backend, vectors=vectors, **{**settings, **changes})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "b"
    write(folder)
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_a_bundle_verifies_and_runs(tmp_path, backend):
    report = write(tmp_path / "b", backend)
    assert verify(tmp_path / "b", report.manifest_digest) == report == write(tmp_path / "again", backend)
    assert contents(tmp_path / "b") == contents(tmp_path / "again")
    assert report.vectors == 3
    assert report.largest_difference == 0
    loaded = Bundle.load(tmp_path / "b", expect=report.manifest_digest)
    assert loaded.verified.pinned
    x = synthetic_vectors(SHAPE, 5, Seed(2))
    assert np.array_equal(loaded.run(x), BACKENDS[backend].load(BACKENDS[backend].lower(taken(backend))).run(x))
    assert loaded.manifest.network_digest == network_digest(taken(backend)) != network_digest(taken(backend, 1))
    assert loaded.read("CARD.md") == b"# Card\n"
    with pytest.raises(ConfigError, match="no file"):
        loaded.read("x")


def test_seal_is_what_sha256sum_reads(bundle):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum")
    subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=bundle, check=True, capture_output=True)


def fails_naming(folder, name):
    with pytest.raises(VerificationFailed) as caught:
        verify(folder)
    assert name in str(caught.value), str(caught.value)


def change(folder, name, position, mask):
    data = bytearray((folder / name).read_bytes())
    data[position] ^= mask
    (folder / name).write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["CARD.md", "report.json", "manifest.json", "manifest.sha256"])
def test_every_flipped_byte_of_small_files_is_named(bundle, name):
    original = (bundle / name).read_bytes()
    try:
        for position in range(len(original)):
            change(bundle, name, position, 1 << position % 8)
            fails_naming(bundle, name)
            (bundle / name).write_bytes(original)
    finally:
        (bundle / name).write_bytes(original)
    verify(bundle)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flip_cut_or_growth_of_any_file_is_named(bundle, data):
    name = data.draw(st.sampled_from(sorted(contents(bundle))))
    original = (bundle / name).read_bytes()
    try:
        how = data.draw(st.sampled_from(["flip", "cut", "grow", "remove"]))
        if how == "flip":
            change(bundle, name, data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(1, 255)))
        elif how == "cut":
            (bundle / name).write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
        elif how == "grow":
            (bundle / name).write_bytes(original + data.draw(st.binary(min_size=1, max_size=3)))
        else:
            (bundle / name).unlink()
        fails_naming(bundle, name)
    finally:
        (bundle / name).write_bytes(original)


@pytest.mark.parametrize("extra", ["x", "device/y.bin", ".hidden", "deep/a/b"])
def test_extra_files_and_folders_are_named(tmp_path, extra):
    write(tmp_path / "b")
    (tmp_path / "b" / extra).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "b" / extra).write_text("")
    fails_naming(tmp_path / "b", extra)
    (tmp_path / "b" / extra).unlink()
    (tmp_path / "b" / "empty").mkdir()
    fails_naming(tmp_path / "b", "e")


@pytest.mark.parametrize("name", ["device/model.packed.safetensors", "manifest.json", "manifest.sha256", "CARD.md"])
def test_links_are_refused_even_to_equal_bytes(tmp_path, name):
    write(tmp_path / "b")
    shutil.copy(tmp_path / "b" / name, tmp_path / "outside")
    (tmp_path / "b" / name).unlink()
    (tmp_path / "b" / name).symlink_to(tmp_path / "outside")
    fails_naming(tmp_path / "b", name)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    fails_naming(tmp_path / "link", "link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["CARD.md", "manifest.json"])
def test_pipes_are_refused_without_waiting(tmp_path, name):
    write(tmp_path / "b")
    (tmp_path / "b" / name).unlink()
    os.mkfifo(tmp_path / "b" / name)
    fails_naming(tmp_path / "b", name)


def reseal(folder, edit):
    plain = json.loads((folder / "manifest.json").read_bytes())
    edit(plain)
    raw = (json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n").encode()
    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.sha256").write_bytes(seal_line(raw))


def _path(value):
    return lambda plain: plain["files"][0].update(path=value)


@pytest.mark.parametrize(
    "edit",
    [
        *(_path(p) for p in ("../x", "/etc/passwd", "a/../../x", "manifest.json", "device//x", "a\\b", "", 7, "C:x")),
        lambda plain: plain["files"][0].update(bytes=2**60),
        lambda plain: plain["files"][0].update(bytes=-1),
        lambda plain: plain["files"][0].update(sha256="0" * 63),
        lambda plain: plain["files"][0].update(role="root"),
        lambda plain: plain["files"].append(dict(plain["files"][0])),
        lambda plain: plain.update(schema="edgeward.bundle/2"),
        lambda plain: plain.update(backend="pickle"),
        lambda plain: plain.update(runtime="onnxruntime"),
        lambda plain: plain.update(tolerance=0.5),
        lambda plain: plain.update(tolerance=1e-3),
        lambda plain: plain.update(classes=4),
        lambda plain: plain.update(input_shape=[1, 2, 8]),
        lambda plain: plain.update(more=1),
        lambda plain: plain.pop("license"),
        lambda plain: plain.update(files=[f for f in plain["files"] if f["role"] != "model"]),
        lambda plain: plain.update(input_shape=[2**30] * 5),
    ],
)
def test_a_resealed_hostile_manifest_is_refused(tmp_path, edit):
    write(tmp_path / "b")
    reseal(tmp_path / "b", edit)
    with pytest.raises(VerificationFailed):
        verify(tmp_path / "b")


def test_pinning_finds_what_resealing_hides(tmp_path):
    pinned = write(tmp_path / "b").manifest_digest
    (tmp_path / "b" / "CARD.md").write_text("# Lies\n")
    other = (tmp_path / "b" / "CARD.md").read_bytes()

    def edit(plain):
        entry = next(f for f in plain["files"] if f["path"] == "CARD.md")
        entry.update(sha256=hashlib.sha256(other).hexdigest(), bytes=len(other))

    reseal(tmp_path / "b", edit)
    verify(tmp_path / "b")
    with pytest.raises(VerificationFailed, match=r"manifest\.json is not the expected one"):
        verify(tmp_path / "b", expect=pinned)
    with pytest.raises(ConfigError, match="not a SHA-256"):
        verify(tmp_path / "b", expect="abc")


def test_another_model_under_right_hashes_fails_the_replay(tmp_path):
    write(tmp_path / "b")
    other = BACKENDS["packed"].lower(network(1))
    (tmp_path / "b/device/model.packed.safetensors").write_bytes(other)

    def edit(plain):
        entry = next(f for f in plain["files"] if f["role"] == "model")
        entry.update(sha256=hashlib.sha256(other).hexdigest(), bytes=len(other))

    reseal(tmp_path / "b", edit)
    fails_naming(tmp_path / "b", "does not repeat the answers")


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["schema", "files", "path", "role", "bytes", "sha256", "classes", "input_shape"]), inner, max_size=5),
    max_leaves=20,
)))  # fmt: skip
def test_any_bytes_as_manifest_give_one_error(bundle, junk):
    raw = junk if isinstance(junk, bytes) else json.dumps(junk).encode()
    kept = {name: (bundle / name).read_bytes() for name in ("manifest.json", "manifest.sha256")}
    try:
        (bundle / "manifest.json").write_bytes(raw)
        (bundle / "manifest.sha256").write_bytes(seal_line(raw))
        fails_naming(bundle, "manifest.json")
    finally:
        for name, data in kept.items():
            (bundle / name).write_bytes(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_manifests_never_crash(bundle, data):
    plain = json.loads((bundle / "manifest.json").read_bytes())
    target = data.draw(st.sampled_from([plain, *plain["files"]]))
    key = data.draw(st.sampled_from(sorted(target)))
    junk = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
    value = data.draw(junk | st.floats(allow_nan=False, allow_infinity=False))
    if value == target[key] or key in ("license", "created", "created_by", "recipe", "network_digest", "role"):
        return
    kept = {name: (bundle / name).read_bytes() for name in ("manifest.json", "manifest.sha256")}
    try:
        reseal(bundle, lambda fresh: _set(fresh, target, plain, key, value))
        with pytest.raises(VerificationFailed):
            verify(bundle)
    finally:
        for name, original in kept.items():
            (bundle / name).write_bytes(original)


def _set(fresh, target, plain, key, value):
    place = fresh if target is plain else fresh["files"][plain["files"].index(target)]
    place[key] = value


def test_nothing_foreign_is_overwritten(tmp_path):
    for name in ("full", "added"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    shutil.rmtree(tmp_path / "added")
    write(tmp_path / "added")
    (tmp_path / "added" / "notes.txt").write_text("mine")
    for name, reason in (("full", "not a bundle"), ("added", "notes.txt"), ("file", "file or a link")):
        with pytest.raises(ConfigError, match=reason):
            write(tmp_path / name)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "added" / "notes.txt").exists()


def test_a_bundle_is_replaced_whole_and_a_failed_write_leaves_the_old_one(tmp_path):
    write(tmp_path / "b")
    before = contents(tmp_path / "b")
    x = synthetic_vectors(SHAPE, 3, Seed(1))
    wrong = Vectors(x, np.zeros((3, 3), np.float32))
    with pytest.raises(VerificationFailed, match="does not repeat"):
        write(tmp_path / "b", vectors=wrong)
    assert contents(tmp_path / "b") == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    write(tmp_path / "b", net=network(5))
    assert contents(tmp_path / "b") != before
    verify(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"report": {"a": float("nan")}},
        {"recipe": {"a": object()}},
        {"extras": {"../x": b""}},
        {"extras": {"card.MD": b""}},
        {"extras": {"manifest.json": b""}},
        {"classes": 7},
        {"vectors": Vectors(np.zeros((0, 1, 4, 4), np.float32), np.zeros((0, 3), np.float32))},
    ],
)
def test_unusable_arguments_write_nothing(tmp_path, changes):
    with pytest.raises(ConfigError):
        write(tmp_path / "b", **changes)
    assert not list(tmp_path.iterdir())


def test_extras_and_copies(tmp_path):
    report = write(tmp_path / "b", extras={"report.html": b"<p>", "LICENSE": b"Apache-2.0"}, license="Apache-2.0")
    assert copy_bundle(tmp_path / "b", tmp_path / "c", report.manifest_digest) == tmp_path / "c"
    assert contents(tmp_path / "b") == contents(tmp_path / "c")
    change(tmp_path / "b", "LICENSE", 0, 1)
    with pytest.raises(VerificationFailed, match="LICENSE"):
        copy_bundle(tmp_path / "b", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_manifest_is_golden():
    """The canonical form is part of the format: a change here is a new schema version."""
    entry = {"path": "CARD.md", "role": "card", "bytes": 1, "sha256": "0" * 64}
    files = [entry, {**entry, "path": "m", "role": "model"}, {**entry, "path": "v", "role": "vectors"}]
    raw = (
        '{"backend":"packed","classes":2,"created":"","created_by":"edgeward 0","files":'
        + json.dumps(files, sort_keys=True, separators=(",", ":"))
        + ',"input_shape":[3],"license":"","network_digest":"","recipe":{},"runtime":"edgeward-packed",'
        '"schema":"edgeward.bundle/1","tolerance":0.0}\n'
    ).encode()
    assert Manifest.from_bytes(raw).to_bytes() == raw


def test_vectors_depend_on_the_seed_alone():
    one, again, other = (synthetic_vectors((2,), 4, Seed(s)) for s in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    gaussian = synthetic_vectors((1000,), 4, Seed(0), kind="gaussian", low=-1, high=3)
    assert gaussian.min() >= -1
    assert gaussian.max() <= 3
    assert abs(gaussian.mean() - 1) < 0.1
