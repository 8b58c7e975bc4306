"""What the secure process of `ProcessWorld` runs: `python -I process_child.py DOOR WINDOW SECRETS` (file descriptors).

It imports nothing of edgeward: the less there is in this address space, the less there is to attack. The order
matters: first nobody may look into the process; then a first list of system calls, under which files can be read and
nothing can be written, covers the loading of the application (its constructors run there); then the short list holds,
and only then does the first request of the normal world come in.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

_PR_SET_DUMPABLE = 4
_F_GET_SEALS, _SHRINK_AND_GROW = 1034, 2 | 4
_START = struct.Struct("<32s56sQQ")
_OUT_OF_MEMORY, _GENERIC = 0xFFFF000C, 0xFFFF0000
# What serving, AES-GCM and the interpreter around them need, on the processors that edgeward meets.
_SERVING = (
    *("recvfrom", "sendto", "recv", "send", "futex", "exit", "exit_group", "brk", "munmap", "madvise", "rt_sigreturn"),
    *("restart_syscall", "clock_gettime", "getrandom"),
)
# What the dynamic linker needs beyond that, and the way to the shorter list.
_LOADING = ("read", "pread64", "close", "fstat", "fstat64", "newfstatat", "mprotect", "prctl", "seccomp")
_READ_ONLY = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SLACK_BYTES = 24 << 20


def main(door: int, window: int, secrets: int) -> NoReturn:
    """Open the application, serve it until the normal world hangs up, and end the process."""
    _hide()
    speak = _speaking(door)
    with os.fdopen(secrets, "rb") as pipe:
        key, configuration, budget, shared_size = _START.unpack(pipe.read(_START.size))
        path = pipe.read().decode()
    unseal = _unsealing(key, configuration)
    shared = _window(window, shared_size)
    loading, serving = _filters()
    _limit_memory(budget + 2 * shared_size + _SLACK_BYTES)
    loading.load()
    library = ctypes.CDLL(path)
    library.edgeward_start.restype = ctypes.c_uint32
    try:
        heap = mmap.mmap(-1, budget)
    except (OSError, ValueError, OverflowError):
        speak.send(struct.pack("<I", _OUT_OF_MEMORY))
        os._exit(0)
    serving.load()
    result = library.edgeward_start(configuration, _address(heap), ctypes.c_uint64(budget), unseal)
    speak.send(struct.pack("<I", result))
    if result == 0:
        library.edgeward_serve(door, _address(shared), ctypes.c_uint64(shared_size))
    os._exit(0)  # here and now: closing what is open takes system calls that are gone


def _hide() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the process cannot be hidden from others")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unsealing(key: bytes, configuration: bytes) -> Any:
    """Return the C callback that decrypts in place; whatever goes wrong in it, it answers 0 and never 1.

    It judges manifest and counter once more: what was loaded might be another application.
    """
    digest, floor = struct.unpack_from("<32sQ", configuration)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(key)
    cipher.decrypt(bytes(12), cipher.encrypt(bytes(12), b"", b""), b"")  # loads what would need files later

    def unseal(nonce: int, associated: int, associated_size: int, data: int, size: int) -> int:
        try:
            sealed = memoryview((ctypes.c_ubyte * (size + 16)).from_address(data)).cast("B")
            extra = ctypes.string_at(associated, associated_size)
            if extra[:32] != digest or int.from_bytes(extra[32:], "little") < floor:
                return 0
            plain = cipher.decrypt(ctypes.string_at(nonce, 12), sealed, extra)
            ctypes.memmove(data, plain, size)
        except BaseException:
            return 0
        return 1

    address, count = ctypes.c_void_p, ctypes.c_uint32
    return ctypes.CFUNCTYPE(count, address, address, count, address, count)(unseal)


def _window(descriptor: int, size: int) -> mmap.mmap:
    """Map the shared window, which must not be able to shrink under the application."""
    if fcntl.fcntl(descriptor, _F_GET_SEALS) & _SHRINK_AND_GROW != _SHRINK_AND_GROW:
        raise OSError("the shared window is not sealed against a change of size")
    mapped = mmap.mmap(descriptor, size)
    os.close(descriptor)
    return mapped


def _address(mapped: mmap.mmap) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))


def _limit_memory(more: int) -> None:
    """Limit the address space to what is mapped plus `more` bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * mmap.PAGESIZE
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped + more if most == resource.RLIM_INFINITY else min(mapped + more, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _filters() -> tuple[Any, Any]:
    """Return the two lists of system calls, not in force yet: for loading the application and for serving it."""
    import pyseccomp

    def listed(names: tuple[str, ...]) -> Any:
        rules = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
        for name in names:
            _allow(rules, name)
        return rules

    loading, serving = listed((*_SERVING, *_LOADING, "mmap", "mmap2")), listed(_SERVING)
    _allow(loading, "openat", pyseccomp.Arg(2, pyseccomp.MASKED_EQ, _READ_ONLY, 0))
    for name in ("mmap", "mmap2"):
        _allow(serving, name, pyseccomp.Arg(2, pyseccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    return loading, serving


def _allow(rules: Any, name: str, *conditions: Any) -> None:
    import pyseccomp

    # A name that this processor has not is no rule.
    with contextlib.suppress(ValueError, OSError):
        rules.add_rule(pyseccomp.ALLOW, name, *conditions)


def _speaking(door: int) -> socket.socket:
    # With family and type given, Python asks the kernel nothing.
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, door)


def _report(door: int, error: BaseException) -> None:
    text = f"{type(error).__name__}: {error}".encode()[:900]
    with contextlib.suppress(OSError):
        _speaking(door).send(struct.pack("<I", _GENERIC) + text)


if __name__ == "__main__":
    _door, _window_, _secrets = map(int, sys.argv[1:4])
    try:
        main(_door, _window_, _secrets)
    except BaseException as error:
        _report(_door, error)
        os._exit(1)
