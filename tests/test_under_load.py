"""The script that runs the tests under load: it tells every run, fails where one failed, and leaves no load behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from patience import PATIENCE

SCRIPT = Path(__file__).parents[1] / "scripts" / "test-under-load"


def started(folder, make, *arguments):
    """Start the script with a `make` of our own."""
    program = folder / "make"
    program.write_text(f"#!/bin/bash\n{make}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LOAD_SECONDS": "600"}
    return subprocess.Popen(
        ["bash", SCRIPT, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def loads(line):
    """Return the process numbers that the script's first line names."""
    assert line.startswith(f"busy loops on {os.cpu_count()} cores: ")
    return [int(number) for number in line.split(": ")[1].split()]


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def end(numbers):
    """Wait until all have ended."""
    until = time.monotonic() + PATIENCE
    while any(map(alive, numbers)):
        assert time.monotonic() < until, "a load is left"
        time.sleep(0.02)


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_every_run_is_told_and_a_failure_is_the_exit_code(tmp_path):
    make = f'echo again >> {tmp_path}/runs; [ "$1" = test ] || exit 9; n=$(wc -l < {tmp_path}/runs); '
    make += 'echo "$n passed in 1.00s"; [ "$n" != 2 ]'
    process = started(tmp_path, make, "3")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    told = out.splitlines()[-3:]
    assert [line.split(" after ")[0] for line in told] == ["run 1: exit 0", "run 2: exit 1", "run 3: exit 0"]
    assert [line.split(": ")[-1] for line in told] == [f"{n} passed in 1.00s" for n in (1, 2, 3)]
    end(loads(out.splitlines()[0]))


def test_runs_that_pass_exit_0(tmp_path):
    process = started(tmp_path, "true", "1")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_load_ends_when_the_script_is_ended(tmp_path, how):
    process = started(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600", "1")
    working = loads(process.stdout.readline())
    assert all(map(alive, working))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.02)
    run = int((tmp_path / "pid").read_text())
    process.send_signal(how)
    if how == signal.SIGTERM:
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
        end([run])
    # One that is ended and not waited for still counts as there.
    process.wait(PATIENCE)
    end(working)
    if how == signal.SIGKILL:
        # Nobody is left to end the run that was under way.
        os.kill(run, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("runs", ["0", "-1", "many", "1.5"])
def test_a_number_of_runs_that_is_none_is_refused(tmp_path, runs):
    process = started(tmp_path, "true", runs)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert f"came '{runs}'" in err
