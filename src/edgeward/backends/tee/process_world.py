"""`ProcessWorld`: the trusted application in a process of its own with a memory budget and a list of system calls."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from edgeward.backends.tee.build import compiled
from edgeward.backends.tee.session import MESSAGE, Channel, Meter, Session, configuration, dead, window_bytes
from edgeward.backends.tee.world import Application, Result, SecureWorld, SecureWorldUnavailable, over_budget
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes

_START = struct.Struct("<32s56sQQ")
_F_ADD_SEALS, _FIXED_SIZE = 1033, 1 | 2 | 4
_SECONDS_TO_START, _SECONDS_TO_END = 60, 5


@final
class ProcessWorld(SecureWorld):
    """A child process that serves one session.

    Guarantee (by the Linux kernel, assumed): own address space; not traceable and no core dumps for other processes of
    this user; at most its budget of memory; any system call outside a list of about a dozen kills it. NOT against root
    or the owner of the device, who read any process's memory, nor against this process, which hands the key over when
    a session opens. The application shares its address space with the key: run those you built or whose manifest you
    trust. The tier "wasm" keeps the key outside.
    """

    tier: ClassVar[str] = "process"
    notice: ClassVar[str] = (
        "emulated: process; isolated from processes without root; root, and so the owner of the device, can read it"
    )

    def __init__(self, key: SecretBytes, *, timeout: float = 30.0, test_build: bool = False) -> None:
        """Hold the sealing key; `timeout` seconds without an answer count as hung."""
        reason = _unavailable()
        if reason:
            fix = "use the tier 'wasm', which runs everywhere"
            raise SecureWorldUnavailable("the tier 'process' cannot run here", expected="Linux", came=reason, fix=fix)
        for module in ("cryptography", "pyseccomp"):
            require(module, extra="tee-emul")
        self._key, self._timeout, self._test_build = key, timeout, test_build

    def build(self, application: Application) -> Path:
        return compiled(application, "process", test_build=self._test_build)

    def open_session(self, application: Application) -> Session:
        library = self.build(application)
        return Session(application, _start(application, library, self._key, self._timeout))


def _unavailable() -> str:
    if not sys.platform.startswith("linux"):
        return sys.platform
    return "" if hasattr(os, "memfd_create") else "a Python without memfd_create"


@final
class _ProcessChannel(Channel):
    """Messages over a socket, data through a shared mapping."""

    def __init__(
        self, process: subprocess.Popen[bytes], door: socket.socket, window: mmap.mmap, timeout: float
    ) -> None:
        self.shared = np.frombuffer(window, np.uint8)
        self.meter = Meter()
        self._process, self._door, self._timeout, self._reason = process, door, timeout, ""
        self._finalizer = weakref.finalize(self, _end, process, door)

    def exchange(self, request: bytes) -> bytes:
        if self._reason:
            raise dead(self._reason)
        answer = b""
        try:
            self._door.send(request)
            answer = self._door.recv(MESSAGE.size)
        except BlockingIOError:
            self._process.kill()
            self._finalizer()
            self._reason = f"the secure process did not answer within {self._timeout:g} s and was ended"
            raise dead(self._reason) from None
        except OSError:
            pass
        except BaseException:
            # An answer that nobody waited for must never be taken for the next one.
            self._process.kill()
            self._finalizer()
            self._reason = "an invocation was interrupted"
            raise
        if len(answer) != MESSAGE.size:
            self._finalizer()
            self._reason = _ending(self._process.returncode)
            raise dead(self._reason)
        return answer

    def close(self) -> None:
        self._finalizer()
        self._reason = self._reason or "the session is closed"


def _start(application: Application, library: Path, key: SecretBytes, timeout: float) -> _ProcessChannel:
    import fcntl  # not on every system, and the door of this tier says so first

    size = window_bytes(application)
    with contextlib.ExitStack() as stack:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(there.close)
        shared = os.memfd_create("edgeward-window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        stack.callback(os.close, shared)
        os.ftruncate(shared, size)
        fcntl.fcntl(shared, _F_ADD_SEALS, _FIXED_SIZE)
        window = mmap.mmap(shared, size)
        read, write = os.pipe()
        stack.callback(os.close, read)
        try:
            process = _spawn((there.fileno(), shared, read))
            figures = (application.memory_budget, size)
            os.write(write, _START.pack(key.reveal(), configuration(application), *figures) + str(library).encode())
        finally:
            os.close(write)
    channel = _ProcessChannel(process, here, window, timeout)
    try:
        _await_start(channel, here, process, application)
    except BaseException:
        channel.close()
        raise
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6)))
    return channel


def _spawn(descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    child = Path(__file__).with_name("process_child.py")
    # Nothing of the environment reaches the secure process but what some interpreters need to start at all.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        return subprocess.Popen(
            [sys.executable, "-I", str(child), *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=kept,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        came = error.strerror or type(error).__name__
        fix = "run under an interpreter that can be started again, or use the tier 'wasm'"
        raise SecureWorldUnavailable("the secure process cannot be started", came=came, fix=fix) from error


def _await_start(
    channel: _ProcessChannel, door: socket.socket, process: subprocess.Popen[bytes], application: Application
) -> None:
    door.settimeout(_SECONDS_TO_START)
    try:
        answer = door.recv(1024)
    except TimeoutError:
        process.kill()
        raise dead(f"the secure process did not start within {_SECONDS_TO_START} s") from None
    except OSError:
        answer = b""
    door.settimeout(None)
    result = int.from_bytes(answer[:4], "little") if len(answer) >= 4 else None
    if result == Result.TEE_ERROR_OUT_OF_MEMORY:
        raise over_budget(application)
    if result is None:
        channel.close()
        raise dead(_ending(process.returncode))
    if result:
        came = answer[4:].decode("utf-8", "replace") or hex(result)
        raise SecureWorldUnavailable(
            "the secure process could not open the trusted application",
            expected="a process that may use seccomp, a sealed shared window and AES-GCM",
            came=came,
            fix="see what is missing above, or use the tier 'wasm'",
        )


def _ending(status: int | None) -> str:
    """Return in words how the secure process ended."""
    if status is None:
        return "the secure process closed its door"
    if status == -signal.SIGSYS:
        return "the secure process made a system call that is not on its list and was killed by the kernel (SIGSYS)"
    if status < 0:
        return f"the secure process was killed ({signal.Signals(-status).name})"
    return f"the secure process ended by itself (exit status {status})"


def _end(process: subprocess.Popen[bytes], door: socket.socket) -> None:
    """Hang up, wait for the end, and insist; leaves neither a process nor a zombie."""
    door.close()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
