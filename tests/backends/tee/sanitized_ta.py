"""Building the trusted application with its fuzzing harness under sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

from edgeward.backends.tee.build import sources
from edgeward.codegen.toolchain import SANITIZERS
from edgeward.native.build import find_compiler
from patience import PATIENCE

HARNESS = Path(__file__).with_name("fuzz_ta.c")


def sanitized(application, folder, *flags):
    """Compile the application with the harness; every allocation of the application is one of the C library's."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler")
    files = sources(application, "emulated")
    for name, text in files.items():
        (folder / name).write_text(text)
    common = [compiler[0], "-std=c11", "-O1", "-Wall", "-Wextra", *SANITIZERS, *flags, f"-I{folder}"]
    objects = []
    for path in [*(folder / name for name in files if name.endswith(".c")), HARNESS]:
        # The pool of the emulation would hide an overrun from one block into the next.
        own = ["-DTEE_Malloc=edgeward_pool"] if path.name == "emulation.c" else []
        objects.append(folder / f"{path.stem}.o")
        run = subprocess.run([*common, *own, "-c", path, "-o", objects[-1]], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "ta" not in path.stem or not run.stderr, run.stderr
    made = folder / "fuzz"
    run = subprocess.run([*common, *objects, "-o", made], capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"no sanitizers: {run.stderr.strip().splitlines()[-1]}")
    return made


def survives(program, rounds):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    run = subprocess.run([program, str(rounds)], capture_output=True, text=True, env=environment, timeout=PATIENCE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == "survived\n"
