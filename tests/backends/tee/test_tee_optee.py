"""The folder for the user's own kit: complete, well typed, without secrets; building it needs that kit."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from backends.tee.tee_stub import stub_program
from edgeward.backends.tee.build import sources
from edgeward.backends.tee.optee import KIT, OpteeWorld, uuid_of, write_folder
from edgeward.backends.tee.world import Application, SecureMemoryExceeded, SecureWorldUnavailable
from edgeward.core.errors import ConfigError
from edgeward.native.build import find_compiler

HEADERS = Path(__file__).with_name("kit_headers")
DIGEST = bytes(range(32))


def application(budget=1 << 20):
    return Application(stub_program(), DIGEST, budget, counter_floor=1 << 40)


def check(path, *flags):
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler")
    command = [compiler[0], "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *flags, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("provision", [False, True])
def test_the_folder_is_well_typed_against_the_published_api(tmp_path, provision):
    uuid = write_folder(application(), tmp_path / "out")
    ta, host = tmp_path / "out" / "ta", tmp_path / "out" / "host"
    flags = [f"-I{HEADERS}", *(["-DEDGEWARD_PROVISION"] if provision else [])]
    named = [line.split("+= ")[1] for line in (ta / "sub.mk").read_text().splitlines() if line.startswith("srcs-y")]
    assert sorted(named) == sorted(p.name for p in ta.glob("*.c"))
    for name in named:
        check(ta / name, *flags)
    check(ta / "user_ta_header_defines.h", "-x", "c")
    check(host / "client.c", f"-I{HEADERS}")
    assert f"BINARY = {uuid}\n" in (ta / "Makefile").read_text()
    for file in ("ta/user_ta_header_defines.h", "host/client.h"):
        assert f"0x{uuid[:8]}" in (tmp_path / "out" / file).read_text()


def test_the_folder_is_the_same_every_time_and_holds_no_weight(tmp_path):
    write_folder(application(), tmp_path / "a")
    write_folder(application(), tmp_path / "b")
    texts = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in tmp_path.iterdir()
    ]
    assert texts[0] == texts[1]
    assert "ta/emulation.c" not in map(str, texts[0])
    # The application itself is the emulated worlds' own, byte for byte.
    emulated = sources(application(), "process")
    assert texts[0][Path("ta/ta_entry.c")].decode() == emulated["ta_entry.c"]


def test_the_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(SecureMemoryExceeded, match="TEE_ERROR_OUT_OF_MEMORY"):
        write_folder(application(4096), tmp_path / "out")
    with pytest.raises(ConfigError, match="UUID"):
        write_folder(application(), tmp_path / "out", "not-a-uuid")
    assert not list(tmp_path.iterdir())
    write_folder(application(), tmp_path / "out")
    with pytest.raises(ConfigError, match="already"):
        write_folder(application(), tmp_path / "out")


def test_without_a_kit_it_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv(KIT, raising=False)
    with pytest.raises(SecureWorldUnavailable, match=KIT):
        OpteeWorld().open_session(application())
    monkeypatch.setenv(KIT, str(tmp_path))
    with pytest.raises(SecureWorldUnavailable, match=r"ta_dev_kit\.mk"):
        OpteeWorld().build(application())


def test_a_kit_that_does_not_build_is_reported(monkeypatch, tmp_path):
    (tmp_path / "mk").mkdir()
    (tmp_path / "mk" / "ta_dev_kit.mk").write_text("all:\n\t@echo no cross compiler >&2; exit 3\n")
    monkeypatch.setenv(KIT, str(tmp_path))
    with pytest.raises(SecureWorldUnavailable, match="no cross compiler"):
        OpteeWorld().build(application())


def test_with_a_kit_the_emulated_worlds_own_sources_are_built(monkeypatch, tmp_path):
    """A kit of one rule: it compiles what `sub.mk` lists against the published headers and calls the result a .ta."""
    compiler = find_compiler()
    if compiler is None or shutil.which("make") is None:
        pytest.skip("no C compiler, or no make")
    (tmp_path / "mk").mkdir()
    (tmp_path / "mk" / "ta_dev_kit.mk").write_text(
        "include sub.mk\n"
        f"$(BINARY).ta: $(srcs-y)\n\t{compiler[0]} -std=gnu11 -Wall -Wextra -Werror -I. -I{HEADERS} -r -nostdlib "
        "-o $@ $(srcs-y)\n"
    )
    monkeypatch.setenv(KIT, str(tmp_path))
    uuid = uuid_of("demo")
    made = OpteeWorld(uuid).build(application())
    assert made.name == f"{uuid}.ta"
    for name in ("ta_entry.c", "net.c"):
        assert (made.parent / name).read_text() == sources(application(), "process")[name]
    symbols = made.read_bytes()
    for entry in (b"TA_InvokeCommandEntryPoint", b"edgeward_net_run", b"edgeward_asking"):
        assert entry in symbols
    with pytest.raises(SecureWorldUnavailable, match=r"\.ta was built"):
        OpteeWorld(uuid).open_session(application())


@pytest.mark.skipif(not os.environ.get(KIT), reason=f"{KIT} names no kit")
def test_it_builds_against_the_users_kit():
    made = OpteeWorld().build(application())
    assert made.stat().st_size > 1000
    with pytest.raises(SecureWorldUnavailable, match="on its device"):
        OpteeWorld().open_session(application())
