"""Compile the kernels with the system's C compiler on first use, load them, and say what happened."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, final

from edgeward.native.cache import cache_root, distrust, open_cache

# -ffp-contract=off keeps float kernels at one rounding per operation, so that every processor gives the same bits.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-fPIC", "-shared")
COMPILERS = ("cc", "gcc", "clang")
TIMEOUT_SECONDS = 120


@final
@dataclass(frozen=True)
class NativeStatus:
    """Which kernels are in use: `variant` is "portable" (NumPy) or the fastest compiled one, `reason` says why."""

    compiled: bool
    variant: str
    reason: str
    compiler: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


@final
@dataclass(frozen=True)
class Loaded:
    """The loaded kernels, or None with the reason they are not used."""

    library: ctypes.CDLL | None
    reason: str
    compiler: str = ""


def sources() -> dict[str, str]:
    """Return the C files and their headers by name."""
    folder = resources.files("edgeward.native") / "kernels"
    found = sorted(folder.iterdir(), key=lambda f: f.name)
    return {f.name: f.read_text("utf-8") for f in found if f.name.endswith((".c", ".h"))}


def find_compiler() -> tuple[str, str] | None:
    """Return the path and the version line of the first C compiler that answers."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        try:
            answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        if answer.stdout.strip():
            return path, answer.stdout.splitlines()[0].strip()
    return None


def compile_kernels(compiler: str, target: Path, *, extra: tuple[str, ...] = ()) -> str:
    """Compile all kernels into the shared library `target`; return the compiler's complaint, or an empty string.

    The library is built under a temporary name and renamed, so concurrent processes never see half of it.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        files = []
        for name, text in sources().items():
            files.append(Path(folder) / name)
            files[-1].write_text(text, "utf-8")
        made = Path(folder) / "kernels.so"
        command = [compiler, *FLAGS, *extra, *(str(f) for f in files if f.suffix == ".c"), "-o", str(made)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return type(error).__name__
        if run.returncode:
            return run.stderr.strip() or f"exit status {run.returncode}"
        made.chmod(0o700)
        os.replace(made, target)
    return ""


def load_from(root: Path) -> Loaded:
    """Load the kernels from the cache folder `root`, compiling them there first where they are missing."""
    reason = open_cache(root)
    if reason:
        return Loaded(None, reason)
    found = find_compiler()
    if found is None:
        return Loaded(None, f"no C compiler found ({', '.join(COMPILERS)})")
    compiler, version = found
    key = "\x1f".join([*(f"{n}\x1e{t}" for n, t in sources().items()), version, *FLAGS, platform.machine()])
    target = root / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    try:
        complaint = "" if target.exists() else compile_kernels(compiler, target)
        if complaint:
            return Loaded(None, f"the kernels do not compile: {complaint.splitlines()[0][:200]}", version)
        reason = distrust(target)
        return Loaded(None, reason, version) if reason else Loaded(declare(ctypes.CDLL(str(target))), "", version)
    except OSError as error:
        return Loaded(None, f"the kernels cannot be loaded ({type(error).__name__})", version)


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the library's functions their C signatures."""
    address, count, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.edgeward_popcount_supports.argtypes = [small]
    library.edgeward_popcount_supports.restype = small
    library.edgeward_binary_matmul.argtypes = [small, *[address] * 4, count, count, count, small]
    library.edgeward_binary_matmul.restype = small
    library.edgeward_ordered_matmul.argtypes = [*[address] * 3, count, count, count]
    library.edgeward_ordered_matmul.restype = None
    library.edgeward_ring_supports.argtypes = [small]
    library.edgeward_ring_supports.restype = small
    library.edgeward_ring_prefers_whole_words.argtypes = []
    library.edgeward_ring_prefers_whole_words.restype = small
    library.edgeward_ring_matmul.argtypes = [small, small, *[address] * 3, *[count] * 4]
    library.edgeward_ring_matmul.restype = small
    library.edgeward_ring_conv2d.argtypes = [small, small, *[address] * 4]
    library.edgeward_ring_conv2d.restype = small
    library.edgeward_transpose_bits.argtypes = [small, address, count]
    library.edgeward_transpose_bits.restype = None
    library.edgeward_slice_bits.argtypes = [small, small, address, address, count]
    library.edgeward_slice_bits.restype = None
    library.edgeward_beaver_and.argtypes = [small, *[address] * 6, count]
    library.edgeward_beaver_and.restype = None
    library.edgeward_look_up_chunks.argtypes = [address, count, ctypes.c_uint8, *[address] * 4, count]
    library.edgeward_look_up_chunks.restype = None
    library.edgeward_shares_truncate.argtypes = [small, small, *[address] * 4, count, small, small, small]
    library.edgeward_shares_truncate.restype = None
    library.edgeward_shares_turn.argtypes = [small, *[address] * 3, count, count, small]
    library.edgeward_shares_turn.restype = None
    library.edgeward_shares_add.argtypes = [small, *[address] * 3, count]
    library.edgeward_shares_add.restype = None
    library.edgeward_dcf_supports.argtypes = []
    library.edgeward_dcf_supports.restype = small
    library.edgeward_dcf_hash.argtypes = [*[address] * 3, count]
    library.edgeward_dcf_hash.restype = None
    library.edgeward_dcf_evaluate.argtypes = [small, small, small, count, *[address] * 5]
    library.edgeward_dcf_evaluate.restype = None
    library.edgeward_dcf_generate.argtypes = [small, small, count, *[address] * 4]
    library.edgeward_dcf_generate.restype = None
    return library


@functools.lru_cache(maxsize=1)
def kernels() -> Loaded:
    """Return this process's kernels; `EDGEWARD_NATIVE=off` in the environment keeps the portable forms."""
    if os.environ.get("EDGEWARD_NATIVE", "").lower() in ("off", "0", "no"):
        return Loaded(None, "EDGEWARD_NATIVE=off")
    if os.name != "posix":
        return Loaded(None, f"compiled kernels are not offered on {platform.system()}")
    root = cache_root(dict(os.environ))
    return load_from(root) if root is not None else Loaded(None, "the user has no home folder for a cache")


def status() -> NativeStatus:
    """Return which kernels are in use and why; the first call compiles them (about a second)."""
    from edgeward.native.popcount import variants

    loaded, best = kernels(), variants()[0]
    return NativeStatus(
        compiled=loaded.library is not None,
        variant=best,
        reason=loaded.reason or "compiled for this machine",
        compiler=loaded.compiler,
    )
