"""A bundle that `protect` made: any changed byte of any file is found and named."""

import hashlib
import shutil

import pytest

from acceptance.acceptance_jobs import write_job
from cli.cli_runner import run

BINARY = {"name": "gecko:crossfit", "teachers": 2, "excluded": 1, "patience": 1.0}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """One bundle of each artefact: ONNX, packed and int8 C."""
    job = write_job(tmp_path_factory.mktemp("bundles"), recipes=["none", "int8", BINARY])
    done = run("protect", job, "--quiet")
    assert done.code == 0, done.err
    return sorted((job.parent / "runs" / "job").glob("candidates/*/bundle"))


def files(bundle):
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def test_what_protect_made_verifies(bundles):
    kinds = {file for bundle in bundles for file in files(bundle) if file.startswith("device/")}
    models = {"device/model.onnx", "device/model.packed.safetensors", "device/model.int8.safetensors"}
    assert {kind for kind in kinds if not kind.startswith("device/c/")} == models
    assert {"device/c/net.c", "device/c/net.h", "device/c/weights.bin", "device/c/form.json"} < kinds
    for bundle in bundles:
        done = run("verify", bundle, "--json")
        assert done.code == 0, done.err
        digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
        assert run("verify", bundle, "--expect", digest).code == 0
        assert run("verify", bundle, "--expect", "0" * 64, "--json").json["error"]["exit_code"] == 3
        assert run("verify", bundle, "--expect", "abc").code == 1


def test_any_flipped_byte_of_any_file_is_3_and_named(bundles, tmp_path):
    for bundle in bundles:
        for file in files(bundle):
            copy = tmp_path / "copy"
            shutil.copytree(bundle, copy)
            whole = (copy / file).read_bytes()
            places = sorted({0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1})
            for position, mask in zip(places, (0x01, 0x20, 0x80, 0x02, 0x40), strict=False):
                content = bytearray(whole)
                content[position] ^= mask
                (copy / file).write_bytes(bytes(content))
                done = run("verify", copy, "--json")
                assert done.code == 3, (file, position, mask)
                assert file in done.json["error"]["message"], (file, position, mask)
                assert "Traceback" not in done.err
            shutil.rmtree(copy)


def test_a_missing_an_extra_and_a_shorter_file_are_named(bundles, tmp_path):
    for number, file in enumerate(files(bundles[0])):
        copy = tmp_path / str(number)
        shutil.copytree(bundles[0], copy)
        whole = (copy / file).read_bytes()
        (copy / file).write_bytes(whole[:-1])
        done = run("verify", copy)
        assert (done.code, file in done.err) == (3, True)
        (copy / file).unlink()
        done = run("verify", copy)
        assert (done.code, file in done.err) == (3, True)
        (copy / file).write_bytes(whole)
        (copy / "device" / "notes.txt").write_text("hello")
        done = run("verify", copy)
        assert (done.code, "device/notes.txt" in done.err) == (3, True)


def test_a_rewritten_manifest_and_seal_are_found_by_the_expected_digest(bundles, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundles[0], copy)
    pinned = hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    card = (copy / "CARD.md").read_bytes()
    forged = card[:-1] + b"!"
    (copy / "CARD.md").write_bytes(forged)
    digests = [hashlib.sha256(text).hexdigest().encode() for text in (card, forged)]
    manifest = (copy / "manifest.json").read_bytes().replace(*digests)
    (copy / "manifest.json").write_bytes(manifest)
    seal = hashlib.sha256(manifest).hexdigest().encode()
    (copy / "manifest.sha256").write_bytes((copy / "manifest.sha256").read_bytes().replace(pinned.encode(), seal))
    assert run("verify", copy).code == 0
    done = run("verify", copy, "--expect", pinned)
    assert (done.code, "manifest" in done.err) == (3, True)


def test_what_is_no_bundle_is_the_users_error(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        done = run("verify", place, "--json")
        assert done.code == 1
        assert done.json["error"]["fix"]
