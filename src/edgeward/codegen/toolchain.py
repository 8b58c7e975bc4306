"""Compile emitted C for this machine, WebAssembly, aarch64 and 32-bit ARM, with everything cached by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from edgeward.core.errors import ConfigError, unknown_name
from edgeward.native.build import find_compiler
from edgeward.native.cache import cache_root, open_cache

TIMEOUT_SECONDS = 300
HOSTED = ("native", "executable")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
_COMMON = ("-std=c11", "-O3", "-ffunction-sections", "-fdata-sections")
_FREESTANDING = ("-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-sanitize=all", "-fno-unwind-tables")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@final
@dataclass(frozen=True)
class Target:
    """A machine to compile for: `flags` select it, `link` makes one file of the objects, `suffix` names it."""

    name: str
    flags: tuple[str, ...]
    link: tuple[str, ...]
    suffix: str


# Images for the instruction meter are not relocated and start at their entry.
_IMAGE = ("-nostdlib", "-static", "-Wl,--gc-sections", "-Wl,--build-id=none")
TARGETS: Mapping[str, Target] = {
    "native": Target("native", ("-fPIC",), ("-shared",), ".so"),
    "executable": Target("executable", ("-fPIE",), ("-pie",), ".run"),
    "wasm32": Target(
        "wasm32",
        ("-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory", *_FREESTANDING),
        ("-nostdlib", "-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--export-memory", "-Wl,--strip-debug"),
        ".wasm",
    ),
    "aarch64": Target("aarch64", ("-target", "aarch64-freestanding-none", *_FREESTANDING), _IMAGE, ".elf"),
    "arm32": Target(
        "arm32", ("-target", "arm-freestanding-eabihf", "-mcpu=cortex_a7", "-marm", *_FREESTANDING), _IMAGE, ".elf"
    ),
}


@final
@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, with the version that enters every cache key."""

    command: tuple[str, ...]
    version: str


def compiler_for(target: str) -> Compiler:
    """Return the compiler of `target`: the system's for "native" where there is one, else ziglang's.

    Errors: `ConfigError` naming what to install.
    """
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    hosted = target in HOSTED
    found = find_compiler() if hosted else None
    if found is not None:
        return Compiler((found[0],), found[1])
    if importlib.util.find_spec("ziglang") is None:
        raise ConfigError(
            f"no C compiler for the target '{target}'",
            expected="a system compiler (cc, gcc, clang) or ziglang" if hosted else "ziglang",
            came="neither on PATH nor installed" if hosted else "ziglang is not installed",
            fix="pip install 'edgeward[tee-emul]'" + (", or install gcc" if hosted else ""),
        )
    from importlib.metadata import version

    return Compiler((sys.executable, "-m", "ziglang", "cc"), f"ziglang {version('ziglang')}")


def build(
    files: Mapping[str, str],
    target: str,
    *,
    exports: Sequence[str] = (),
    entry: str = "",
    flags: Sequence[str] = (),
    folder: Path | None = None,
) -> Path:
    """Compile and link `files` (C sources and headers by name) for `target`; return the cached result.

    Targets: "native" gives a shared library; "executable" a program of this machine (one file has `main`); "wasm32" a
    module without imports that exports its memory and `exports`; "aarch64" and "arm32" a freestanding image that
    starts at `entry`. `flags` go to compiler and linker. The result is a function of texts, flags and compiler
    version; objects are cached one by one under `folder` (the user's cache of compiled kernels by default) and renamed
    into place when whole. Cost: about a second when new. Errors: `ConfigError` with the compiler's first complaint.
    """
    root, compiler, chosen = _root(folder), compiler_for(target), TARGETS[target]
    machine = (*chosen.flags, *_machine_flags(target, compiler), *flags)
    objects = [_object(root, compiler, files, name, machine) for name in sorted(files) if name.endswith(".c")]
    prefix = "-Wl,--export=" if target == "wasm32" else "-Wl,-u,"
    link = [*chosen.link, *machine, *(prefix + name for name in exports)]
    link += [f"-Wl,-e,{entry}"] if entry and target in ("aarch64", "arm32") else []
    key = _key(compiler.version, *link, *(o.name for o in objects), _machine_identity(target))
    made = root / f"net-{key}{chosen.suffix}"
    if not made.exists():
        _run([*compiler.command, *link, *map(str, objects)], made, {})
    return made


def _object(root: Path, compiler: Compiler, files: Mapping[str, str], name: str, machine: Sequence[str]) -> Path:
    used = _with_includes(files, name)
    command = [*_COMMON, *machine]
    identity = _machine_identity("native") if "-march=native" in machine else ""
    key = _key(compiler.version, *command, *(f"{n}\x1e{files[n]}" for n in used), identity)
    made = root / f"{Path(name).stem}-{key}.o"
    if not made.exists():
        _run([*compiler.command, *command, "-c", name], made, {n: files[n] for n in used})
    return made


def _with_includes(files: Mapping[str, str], name: str) -> list[str]:
    """Return `name` and every given header it includes, directly or not."""
    seen: list[str] = []
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in files and current not in seen:
            seen.append(current)
            waiting += _INCLUDE.findall(files[current])
    return seen


def _run(command: list[str], made: Path, files: Mapping[str, str]) -> None:
    """Run a compiler in a folder of its own that holds `files`; its output is renamed to `made`."""
    with tempfile.TemporaryDirectory(dir=made.parent, prefix="build-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, "utf-8")
        output = folder / ("made" + made.suffix)
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(made.parent / "zig"), "LC_ALL": "C"}
        environment["ZIG_LOCAL_CACHE_DIR"] = environment["ZIG_GLOBAL_CACHE_DIR"]
        try:
            run = subprocess.run(
                [*command, "-o", str(output)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _failed(command, type(error).__name__) from error
        if run.returncode or not output.exists():
            raise _failed(command, run.stderr.strip() or f"exit status {run.returncode}")
        output.chmod(0o700)
        os.replace(output, made)


def _failed(command: Sequence[str], complaint: str) -> ConfigError:
    lines = complaint.splitlines()
    telling = next((line for line in lines if "error" in line), lines[0])
    return ConfigError(
        "the emitted C does not compile", expected="success", came=telling[:300], fix=f"run {command[0]} by hand"
    )


def _machine_flags(target: str, compiler: Compiler) -> tuple[str, ...]:
    if target not in HOSTED or platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    return ("-march=native",)


def _machine_identity(target: str) -> str:
    """Return what tells processors apart whose code must not be mixed in one cache."""
    if target not in HOSTED:
        return ""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _root(folder: Path | None) -> Path:
    root = folder if folder is not None else cache_root(dict(os.environ))
    reason = open_cache(root) if root is not None else "the user has no home folder for a cache"
    if root is None or reason:
        raise ConfigError("compiled code cannot be cached", came=reason, fix="set XDG_CACHE_HOME to a folder of yours")
    return root


def _key(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]
