"""`verify` on a split: evidence of a secure world, and any changed file."""

import json

import pytest

from cli.cli_runner import run
from cli.mirror.mirror_runs import NONCE, copied, flip
from edgeward.backends.tee.device_storage import DeviceStorage

pytest_plugins = ["cli.mirror.mirror_fixtures"]

pytest.importorskip("wasmtime", reason="the extra tee-emul is not installed")
pytest.importorskip("cryptography", reason="the extra tee-emul is not installed")


@pytest.fixture(scope="module")
def token(folder, mirrored):
    pytest.importorskip("cwt", reason="the extra tee-attest is not installed")
    path = folder / "token.cwt"
    done = run("run", folder / "run" / "bundle", "--evidence", path, "--nonce", NONCE, "--json")
    assert done.code == 0, done.err
    assert done.json["labels"] == []
    assert done.json["evidence"] == str(path)
    return path


def checked(bundle, token, *more, nonce=NONCE):
    return run("verify", bundle, "--evidence", token, "--nonce", nonce, "--json", *more)


def test_emulated_evidence_is_refused_unless_accepted(folder, token):
    bundle = folder / "run" / "bundle"
    refused = checked(bundle, token)
    assert refused.code == 3
    assert "from an emulated secure world" in refused.json["error"]["message"]
    good = checked(bundle, token, "--accept-emulated")
    assert good.code == 0, good.err
    stated = good.json["evidence"]
    assert stated["tier"] == "wasm"
    assert "emulated" in stated["profile"]
    assert stated["manifest"] == good.json["manifest_digest"]


def test_evidence_that_is_old_altered_or_of_another_is_refused(folder, token, result, tmp_path):
    bundle, accept = folder / "run" / "bundle", "--accept-emulated"
    tampered = tmp_path / "tampered.cwt"
    tampered.write_bytes(token.read_bytes())
    flip(tampered, -1)
    DeviceStorage(tmp_path / "other").attestation_key()
    # sealed once more: the same network under a newer counter
    result.export(tmp_path / "newer" / "bundle", DeviceStorage(folder / "run" / "device"), counter=9)
    device = ["--attester", folder / "run" / "device" / "attestation.pem"]
    cases = {
        "not an answer to this nonce": checked(bundle, token, accept, nonce="ff" * 16),
        "not signed by the given key": checked(bundle, tampered, accept),
        "by the given key": checked(bundle, token, accept, "--attester", tmp_path / "other" / "attestation.pem"),
        "others for: application, tier": checked(bundle, token, accept, "--tier", "process"),
        "others for: sealed, manifest": checked(tmp_path / "newer" / "bundle", token, accept, *device),
    }
    for message, done in cases.items():
        assert done.code == 3, message
        assert message in done.json["error"]["message"]
    missing = checked(bundle, tmp_path / "absent.cwt", accept)
    assert missing.code == 1
    assert "absent.cwt" in missing.json["error"]["message"]
    assert run("verify", bundle, "--evidence", token).code == 1


def test_verify_finds_any_changed_file(folder, mirrored, tmp_path):
    bundle = copied(folder, tmp_path)
    document = run("verify", bundle, "--storage", tmp_path / "run" / "device", "--json").json
    assert document["verified"]
    assert document["sealed_opened"]
    assert document["uncovered"] == []
    assert run("verify", bundle, "--expect", document["manifest_digest"]).code == 0
    assert run("verify", bundle, "--expect", "0" * 64).code == 3
    assert "judged by the secure world" in run("verify", bundle).out
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert "CARD.md" in manifest["files"]
    for name in [*manifest["files"], "manifest.json"]:
        for place in (0, (bundle / name).stat().st_size // 2, -2):
            flip(bundle / name, place)
            done = run("verify", bundle, "--json")
            assert done.code == 3, (name, place)
            found = done.json["error"]["message"]
            assert name in found or (name == "manifest.json" and "manifest" in found), (name, place, found)
            flip(bundle / name, place)
    for place in (0, 20, 40, 60):
        flip(bundle / "secure-world" / "weights.sealed", place)
        done = run("verify", bundle, "--storage", tmp_path / "run" / "device", "--json")
        assert done.code == 3, place
        assert "weights.sealed" in done.json["error"]["message"]
        flip(bundle / "secure-world" / "weights.sealed", place)
    (bundle / "normal-world" / "model.onnx").unlink()
    assert run("verify", bundle).code == 3
