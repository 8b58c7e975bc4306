"""What a measurement was made on: software versions, processor, threads; never who or where."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import edgeward

PACKAGES = ("edgeward", "torch", "onnxruntime", "onnx", "numpy", "scipy", "opacus", "scikit-learn", "safetensors")

X86_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_vpopcntdq")
AMX_FLAGS = ("amx_tile", "amx_int8", "amx_bf16")
ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
"""Processor flags that decide which kernels run."""

_RESULTS = "benchmarks/results"
# A machine at work may keep git waiting; the tree is not unknown for that.
_GIT_SECONDS = 60


def environment() -> dict[str, Any]:
    """Return the environment as plain JSON values.

    Holds versions, operating system, processor model and flags, cores, threads, the native kernels in use and the
    source commit. Holds no host name, user name, path or address.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "os": _operating_system(),
        "cpu": cpu_model(),
        "cpu_flags": sorted(_cpu_flags() & {*X86_FLAGS, *AMX_FLAGS, *ARM_FLAGS}),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "ram_bytes": _ram_bytes(),
        "threads": torch.get_num_threads(),
        "native_kernels": _native_kernels(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
        "commit": source_commit(),
    }


def source_commit(root: Path | None = None) -> str | None:
    """Return the commit the package is run from (of the checkout `root`, where given), None for an installed package.

    It ends in "+changed" where a file of the checkout differs from the commit or is new and not ignored by git. Stored
    results of benchmarks do not count: nothing that is measured reads them, and storing one must not mark the next.
    """
    return _commit(Path(edgeward.__file__).resolve().parents[2] if root is None else root)


def cpu_model() -> str:
    """Return the processor's model name, or its architecture where the system does not say.

    >>> bool(cpu_model())
    True
    """
    fields = _cpuinfo()
    for key in ("model name", "Model", "Hardware"):
        if fields.get(key):
            return fields[key]
    return platform.processor() or platform.machine() or "unknown"


def _cpu_flags() -> set[str]:
    fields = _cpuinfo()
    return set((fields.get("flags") or fields.get("Features") or "").split())


def _cpuinfo() -> dict[str, str]:
    """Return the first value of every field of /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    return f"{name} ({platform.system()})" if name else f"{platform.system()} {platform.mac_ver()[0]}".strip()


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _native_kernels() -> str:
    # the status' reason may name a path, so that only the variant is told
    from edgeward.native import status

    return status().variant


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    git = ["git", "-c", "core.fsmonitor=false", "-c", "status.relativePaths=false", "-C", str(root)]
    # GIT_DIR and its kin would name another repository. Without optional locks no other git is kept waiting.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        head, status = (
            subprocess.run(
                [*git, *command], env=own, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
            ).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ".", f":(exclude){_RESULTS}"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("+changed" if status.strip() else "")
