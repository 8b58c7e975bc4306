"""The trusted application as files: the emitted network beside the fixed C of `ta/`, and its compiled forms."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from edgeward.backends.tee.world import Application
from edgeward.codegen.toolchain import build

# Which fixed files make the application of each tier; `tee_api.h` comes from the kit on a device.
_SHARED = ("copy.h", "ta.h", "ta_entry.c")
_EMULATED = (*_SHARED, "tee_api.h", "emulation.h", "emulation.c")
_PARTS = {
    "process": (*_EMULATED, "serve.c"),
    "wasm": (*_EMULATED, "wasm.c"),
    "emulated": _EMULATED,
    "optee": _SHARED,
}
_LIBRARY = ("edgeward_start", "edgeward_serve")
_MODULE = (
    *("edgeward_configuration_address", "edgeward_letterbox_address", "edgeward_share", "edgeward_start"),
    *("edgeward_invoke", "edgeward_stop"),
)
_WASM_STACK = "-Wl,-z,stack-size=65536"
Form = Literal["process", "wasm", "emulated", "optee"]


def fixed_source(name: str) -> str:
    """Return the text of a file of `ta/`."""
    return (resources.files("edgeward.backends.tee") / "ta" / name).read_text("utf-8")


def sources(application: Application, form: Form) -> dict[str, str]:
    """Return the C files by name: the network, its sizes in `application.h`, and what `form` adds.

    Neither weights nor keys are in them; the same network gives the same text.
    """
    return {
        **application.program.files,
        "application.h": sizes_header(application),
        **{name: fixed_source(name) for name in _PARTS[form]},
    }


def sizes_header(application: Application) -> str:
    """Return `application.h`: the sizes that the trusted application takes memory for."""
    program = application.program
    figures: dict[str, int | str] = {
        "INPUTS": len(program.input_bytes),
        "INPUT_BYTES": "{" + ", ".join(f"{n}u" for n in program.input_bytes) + "}",
        "ALL_INPUT_BYTES": f"{sum(program.input_bytes)}u",
        "OUTPUT_BYTES": f"{program.output_bytes[0]}u",
        "WEIGHTS_BYTES": program.weights_bytes,
        "ARENA_BYTES": f"{program.arena_bytes}u",
    }
    same = [f"EDGEWARD_NET_INPUT_BYTES_{i} == {n}" for i, n in enumerate(program.input_bytes)]
    same += [f"EDGEWARD_NET_{n} == EDGEWARD_TA_{n}" for n in ("INPUTS", "WEIGHTS_BYTES", "ARENA_BYTES")]
    same += ["EDGEWARD_NET_OUTPUTS == 1", "EDGEWARD_NET_OUTPUT_BYTES_0 == EDGEWARD_TA_OUTPUT_BYTES"]
    figures["FITS_NET"] = "(" + " && ".join(same) + ")"
    lines = [f"#define EDGEWARD_TA_{name} {value}" for name, value in figures.items()]
    return "\n".join(["/* Sizes of one network, in bytes. */", *lines, ""])


def compiled(application: Application, form: Literal["process", "wasm"], *, test_build: bool = False) -> Path:
    """Return the compiled application: a shared library for this machine, or a wasm module. Cached by content.

    `test_build` adds the command that tries what is forbidden. Raises: `ConfigError` without a compiler.
    """
    flags = ("-DEDGEWARD_TEST_FORBIDDEN",) if test_build else ()
    files = sources(application, form)
    if form == "process":
        return build(files, "native", exports=_LIBRARY, flags=("-fvisibility=hidden", *flags))
    return build(files, "wasm32", exports=_MODULE, flags=(_WASM_STACK, *flags))
