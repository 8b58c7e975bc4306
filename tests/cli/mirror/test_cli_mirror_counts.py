"""`run` on a split counts releases and queries: an older release and a query too many are refused."""

from dataclasses import replace

import pytest

from cli.cli_runner import run
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.release import SplitRelease, release, resealed
from edgeward.backends.tee.sealing import open_sealed, seal

pytest_plugins = ["cli.mirror.mirror_fixtures"]

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")


def test_once_a_newer_bundle_ran_an_older_one_is_refused(folder, result, mirrored, tmp_path):
    storage = DeviceStorage(tmp_path / "device")
    old, new = tmp_path / "old", tmp_path / "new"
    result.export(old, storage)
    given = ["--input", folder / "x.npy", "--storage", tmp_path / "device"]
    assert run("run", old, *given).code == 0
    result.export(new, storage)
    assert run("run", new, *given).code == 0
    refused = run("run", old, *given)
    assert refused.code == 3
    assert "counter" in refused.err


def test_the_counter_belongs_to_the_deployment_and_not_to_its_strategys_name(folder, result, tmp_path):
    """A release under another name must not start anew, and another deployment of the same name must not be held up."""
    storage, given = DeviceStorage(tmp_path / "device"), ["--input", folder / "x.npy"]
    old = result.export(tmp_path / "old", storage)
    assert run("run", tmp_path / "old", *given).code == 0
    renamed = replace(old.manifest, name="another name", counter=0)
    key = storage.key()
    moved = resealed(replace(old, manifest=renamed, sealed=_under(old, renamed, key)), key, key, 0, None)
    moved.write(tmp_path / "renamed")
    refused = run("run", tmp_path / "renamed", *given)
    assert refused.code == 3
    assert "counter" in refused.err
    other = result.export(tmp_path / "other", storage, identity="another-deployment")
    assert (other.manifest.name, other.manifest.counter) == (old.manifest.name, 1)
    assert result.export(tmp_path / "old", storage).manifest.counter == 2
    assert run("run", tmp_path / "other", *given).code == 0


def _under(split, manifest, key):
    """The weights of `split`, sealed for another manifest."""
    opened = open_sealed(split.sealed, key, split.manifest.digest(), 0)
    return seal(opened.content, key, manifest.digest(), manifest.counter)


def test_the_card_names_the_counter_that_was_sealed(folder, result, tmp_path):
    written = result.export(tmp_path / "bundle", DeviceStorage(tmp_path / "device"), counter=41)
    card = (tmp_path / "bundle" / "CARD.md").read_text()
    assert written.manifest.counter == 41
    assert "counter 41 inside the authenticated data" in card
    assert "any number of times" in card


@pytest.fixture
def limited(folder, result, tmp_path):
    """A bundle that answers seven times, with its device."""
    storage = DeviceStorage(tmp_path / "device")
    chosen = replace(result.choose().deployment, query_limit=7)
    release(chosen, storage.key(), 1, identity="limited").write(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("tiers", [("wasm", "wasm"), ("process", "wasm"), ("wasm", "process")])
def test_a_query_limit_holds_over_sessions_and_tiers(folder, limited, tiers):
    first, second = (run("run", limited, "--input", folder / "x.npy", "--tier", tier, "--json") for tier in tiers)
    assert (first.code, len(first.json["labels"])) == (0, 5)
    assert second.code == 3
    assert "TEE_ERROR_ACCESS_DENIED" in second.json["error"]["message"]
    assert "labels" not in second.json
    device = DeviceStorage(limited.parent / "device")
    assert device.asked("limited").floor() == 7
    assert run("verify", limited, "--storage", limited.parent / "device", "--json").json["query_limit"] == 7


def test_a_limit_written_into_the_manifest_alone_does_not_pass(limited, tmp_path):
    """The secure world goes by the sealed number; `verify` with the key finds that the manifest says another."""
    split, key = SplitRelease.read(limited), DeviceStorage(tmp_path / "device").key()
    lax = replace(split.manifest, border=replace(split.manifest.border, query_limit=None))
    opened = open_sealed(split.sealed, key, split.manifest.digest(), 0)
    sealed = seal(opened.content, key, lax.digest(), 1, 7)
    replace(split, manifest=lax, sealed=sealed).write(limited)
    done = run("verify", limited, "--storage", tmp_path / "device", "--json")
    assert done.code == 3
    assert "query limit 7" in done.json["error"]["message"]
