"""The process tier alone: confinement, death, time limits, memory."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backends.tee.tee_stub import stub_program
from backends.tee.tee_worlds import DIGEST, KEY, LINUX, WEIGHTS, application, records, world_of
from edgeward.backends.tee.sealing import seal
from edgeward.backends.tee.world import (
    SecureWorldDead,
    SecureWorldUnavailable,
)
from patience import PATIENCE


@pytest.fixture
def process_world():
    if not LINUX:
        pytest.skip("the process tier needs Linux")
    return world_of("process", timeout=0.5)


def child_of(session):
    return session._channel._process


def test_process_is_hidden_confined_and_has_no_core_dump(process_world):
    with process_world.open_session(application()) as session:
        pid = child_of(session).pid
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines())
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        with open(f"/proc/{pid}/limits") as file:
            limits = {line[:25].strip(): line[25:].split()[0] for line in file.read().splitlines()[1:]}
        assert limits["Max core file size"] == "0"
        assert int(limits["Max address space"]) < 1 << 30
        # Not dumpable: its files in /proc belong to root even when this user is another.
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0


def test_process_key_is_in_no_argument_and_no_environment(process_world):
    with process_world.open_session(application()) as session:
        pid = child_of(session).pid
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
            except PermissionError:
                continue
            assert KEY.reveal() not in text
            assert KEY.reveal().hex().encode() not in text
        assert len(os.listdir(f"/proc/{pid}/fd")) <= 5 or os.getuid() != 0


def test_process_confines_the_loading_of_the_application_too(process_world, tmp_path):
    program, written = stub_program(), tmp_path / "written"
    text = f'''
#include <fcntl.h>
__attribute__((constructor)) static void early(void) {{ (void)open("{written}", O_CREAT | O_WRONLY, 0600); }}
'''
    files = {**program.files, "early.c": text}
    with pytest.raises(SecureWorldDead, match="SIGSYS"):
        process_world.open_session(application(program=replace(program, files=files)))
    assert not written.exists()


def test_process_that_hangs_is_ended(process_world):
    session = process_world.open_session(application())
    child = child_of(session)
    os.kill(child.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(SecureWorldDead, match=r"within 0\.5 s"):
        session.noop()
    assert time.monotonic() - start < 5
    assert child.returncode == -signal.SIGKILL


def test_process_that_is_killed_is_a_dead_target(process_world):
    session = process_world.open_session(application())
    os.kill(child_of(session).pid, signal.SIGKILL)
    with pytest.raises(SecureWorldDead, match="SIGKILL"):
        session.noop()


def test_process_ends_with_its_session_and_leaves_nothing(process_world):
    session = process_world.open_session(application())
    child = child_of(session)
    session.close()
    assert child.returncode == 0
    del session
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        session = process_world.open_session(application())
        child = child_of(session)
        del session
        assert child.returncode == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_process_refuses_a_window_that_could_shrink():
    if not LINUX:
        pytest.skip("the process tier needs Linux")
    from edgeward.backends.tee.process_child import _window

    descriptor = os.memfd_create("window", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    with pytest.raises(OSError, match="not sealed"):
        _window(descriptor, 4096)
    os.close(descriptor)


SCARCE = """
import resource, sys
from backends.tee.test_tee_worlds import application, world_of
from edgeward.backends.tee.world import SecureMemoryExceeded
world = world_of("process")
world.build(application())
resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
world.open_session(application()).close()
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    world.open_session(application(memory_budget=1 << 31))
except SecureMemoryExceeded as error:
    sys.stdout.write(str(error))
"""


def test_process_where_the_machine_has_less_than_the_budget(process_world):
    process_world.build(application())
    tests = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCARCE]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tests, timeout=PATIENCE)
    assert "does not give the secure world its budget" in run.stdout, run.stderr


def test_process_refuses_where_it_cannot_run(monkeypatch):
    from edgeward.backends.tee import process_world as module

    monkeypatch.setattr(module.sys, "platform", "plan9")
    with pytest.raises(SecureWorldUnavailable, match="plan9"):
        module.ProcessWorld(KEY)


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def steady(session, count):
    one = [t[0] for t in records(1)]
    for _ in range(2000):
        session.noop()
    pages = f"/proc/{child_of(session).pid}/statm"
    before = rss(), _resident(pages)
    for _ in range(count):
        session.noop()
    for _ in range(count // 100):
        session.infer(one)
    return rss() - before[0], _resident(pages) - before[1]


def _resident(path):
    with open(path) as file:
        return int(file.read().split()[1]) * 4096


def test_process_thirty_thousand_invocations_take_no_memory(process_world):
    with process_world.open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        assert max(steady(session, 30_000)) <= 256 << 10


@pytest.mark.slow
def test_process_a_million_invocations_take_no_memory():
    if not LINUX:
        pytest.skip("the process tier needs Linux")
    with world_of("process").open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        assert max(steady(session, 1_000_000)) <= 256 << 10
