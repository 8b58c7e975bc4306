"""`edgeward doctor`: what this machine offers, what is missing, and how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply, table

_PACKAGES = ("torch", "numpy", "scipy", "safetensors", "onnx", "onnxruntime", "opacus", "scikit-learn", "matplotlib")
_EXTRAS = {
    "tee-emul": ("wasmtime", "cryptography", "pyseccomp", "unicorn", "ziglang"),
    "tee-attest": ("cwt",),
    "mpc": ("cryptography",),
}
"""Packages that only split deployments and secure computation need; without them the rest works."""
_WORLDS = {"wasm": ("wasmtime", "cryptography", "ziglang"), "process": ("pyseccomp", "cryptography")}


def doctor(as_json: AsJson = False) -> Reply:
    """Report versions, kernels, data and devices; a problem is a line that starts with 'missing' or 'broken'."""
    checks = [
        {"check": name, "state": state, "detail": detail}
        for name, state, detail in [*_packages(), *_extras(), *(_tried(name, probe) for name, probe in _PROBES.items())]
    ]
    ok = all(check["state"] in ("ok", "absent") for check in checks)
    rows = [(check["check"], check["state"], check["detail"]) for check in checks]
    document = {"ok": ok, "checks": checks, "environment": _environment()}
    return Reply(document, [table(("check", "state", "detail"), rows)], 0 if ok else 1)


def _packages() -> list[tuple[str, str, str]]:
    return [(package, *_installed(package)) for package in _PACKAGES]


def _installed(package: str) -> tuple[str, str]:
    try:
        return "ok", version(package)
    except PackageNotFoundError:
        return "missing", f"pip install {package}"


def _extras() -> list[tuple[str, str, str]]:
    found = []
    for extra, packages in _EXTRAS.items():
        for package in packages:
            state, detail = _installed(package)
            missing = f"optional: pip install 'edgeward[{extra}]'"
            found.append((package, "ok", detail) if state == "ok" else (package, "absent", missing))
    return found


def _tried(name: str, probe: Callable[[], tuple[str, str]]) -> tuple[str, str, str]:
    try:
        return (name, *probe())
    except Exception as error:
        return name, "broken", f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _native() -> tuple[str, str]:
    from edgeward.native import status

    found = status()
    return "ok", f"{found.variant}: {found.reason}"


def _accelerator() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        return "ok", torch.cuda.get_device_name(0)
    return "absent", "no CUDA device; everything runs on the CPU"


def _data_root() -> tuple[str, str]:
    text = os.environ.get("EDGEWARD_DATA", "")
    if not text:
        return "absent", "EDGEWARD_DATA is not set; 'digits' and your own records work without it"
    folder = Path(text)
    if not folder.is_dir():
        return "broken", f"EDGEWARD_DATA names no folder: {text}"
    return "ok", ", ".join(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))[:200]


def _devices() -> tuple[str, str]:
    from edgeward.devices import devices, load_profile

    return "ok", ", ".join(load_profile(name).name for name in devices())


def _worlds() -> tuple[str, str]:
    usable = [tier for tier, needs in _WORLDS.items() if all(_installed(package)[0] == "ok" for package in needs)]
    return ("ok", "emulated: " + ", ".join(usable)) if usable else ("absent", "pip install 'edgeward[tee-emul]'")


def _recipes() -> tuple[str, str]:
    from edgeward.recipes import RECIPES

    return "ok", ", ".join(RECIPES)


_PROBES: dict[str, Callable[[], tuple[str, str]]] = {
    "native kernels": _native,
    "accelerator": _accelerator,
    "data": _data_root,
    "device profiles": _devices,
    "recipes": _recipes,
    "secure worlds": _worlds,
}


def _environment() -> Any:
    from edgeward.measure.fingerprint import environment

    return environment()
