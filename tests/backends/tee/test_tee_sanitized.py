"""The trusted application under address and undefined-behaviour sanitizers, fuzzed where no gap hides an overrun."""

import subprocess

import pytest

from backends.tee.sanitized_ta import sanitized, survives
from backends.tee.tee_stub import stub_program
from edgeward.backends.tee.world import Application
from patience import PATIENCE


@pytest.mark.parametrize("argmax", [True, False])
def test_fuzzed_application_reads_and_writes_within_bounds(tmp_path, argmax):
    program = stub_program(argmax=argmax)
    application = Application(program, bytes(32), 1 << 16, ends_in_argmax=argmax)
    survives(sanitized(application, tmp_path), 20_000)


def test_the_harness_finds_an_overrun(tmp_path):
    program = stub_program()
    wrong = program.files["net.c"].replace("EDGEWARD_NET_ARENA_BYTES - 1", "EDGEWARD_NET_ARENA_BYTES")
    assert wrong != program.files["net.c"]
    object.__setattr__(program, "files", {**program.files, "net.c": wrong})
    made = sanitized(Application(program, bytes(32), 1 << 16), tmp_path)
    run = subprocess.run([made, "10"], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode != 0
    assert "heap-buffer-overflow" in run.stderr
