"""Count the instructions of an emitted program on an emulated ARM processor (Unicorn): the same number everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from edgeward.codegen.emit import ENTRY, Program
from edgeward.codegen.image import Image, read_image
from edgeward.codegen.native_run import check_records
from edgeward.codegen.toolchain import build
from edgeward.core.errors import ConfigError, unknown_name
from edgeward.core.extras import require

_PAGE = 0x1000
_STACK = 1 << 16
_RETURN = 0x1000  # a mapped page of its own: arriving there ends the run
_DATA = 0x10000000


@final
@dataclass(frozen=True)
class InstructionCount:
    """Instructions of one call: in total, per step of the program (in order of `Program.steps`), and its outputs."""

    target: str
    total: int
    steps: tuple[tuple[str, int], ...]
    outputs: tuple[np.ndarray, ...] = field(compare=False, repr=False)


def count(
    program: Program,
    inputs: Sequence[np.ndarray],
    weights: bytes,
    target: str = "aarch64",
    *,
    flags: Sequence[str] = (),
    folder: Path | None = None,
) -> InstructionCount:
    """Run one record ([1, ...] int8 per input) on the emulated processor and count what it executes.

    Targets: "aarch64" (ARMv8.0 with NEON, no dot product) and "arm32" (ARMv7 with NEON). Guarantee: deterministic;
    memory outside the program's own areas is not mapped, so that a stray access is an error. Cost: about 50 million
    instructions per second. Errors: `ConfigError` for a stray access; `MissingExtra` without unicorn.
    """
    if check_records(program, inputs, weights) != 1:
        raise ConfigError("the meter runs one record", expected="[1, ...]", came=str([list(x.shape) for x in inputs]))
    image = read_image(build(program.files, target, exports=(ENTRY,), entry=ENTRY, flags=flags, folder=folder))
    areas = _Areas(program, inputs, weights, 4 if target == "arm32" else 8)
    machine = _Machine(target, image, areas)
    total, per_function = machine.run()
    steps = tuple((name, per_function.get(f"edgeward_step_{i}", 0)) for i, name in enumerate(program.steps))
    return InstructionCount(target, total, steps, machine.outputs(program))


@final
class _Areas:
    """Where the caller's memory lies: each area on pages of its own, its end at a page's end to catch overruns."""

    def __init__(self, program: Program, inputs: Sequence[np.ndarray], weights: bytes, pointer: int) -> None:
        self.content: list[tuple[int, bytes]] = []
        self._next = _DATA
        given = [self._place(np.ascontiguousarray(x).tobytes()) for x in inputs]
        self.made = [self._place(bytes(size)) for size in program.output_bytes]
        self.weights = self._place(weights)
        self.arena = self._place(bytes(program.arena_bytes), aligned=True)
        self.inputs, self.outputs = (
            self._place(b"".join(a.to_bytes(pointer, "little") for a in addresses), aligned=True)
            for addresses in (given, self.made)
        )

    def _place(self, content: bytes, aligned: bool = False) -> int:
        size = -(-max(len(content), 1) // _PAGE) * _PAGE
        start = self._next + size - len(content)
        start -= start % 16 if aligned else 0
        self.content.append((start, content))
        self._next += size + _PAGE
        return start


@final
class _Machine:
    """One emulated processor with a program and its memory."""

    def __init__(self, target: str, image: Image, areas: _Areas) -> None:
        if target not in ("aarch64", "arm32"):
            raise unknown_name("metered target", target, ("aarch64", "arm32"))
        self._unicorn: Any = require("unicorn", extra="tee-emul")
        self._areas, self._image, self._wide = areas, image, target == "aarch64"
        self._cpu = self._make()
        mapped = 0
        for start, content in sorted(
            [*image.segments, *areas.content, (_RETURN, bytes(4)), (_DATA - 2 * _STACK, bytes(_STACK))]
        ):
            first, last = max(start - start % _PAGE, mapped), -(-(start + max(len(content), 1)) // _PAGE) * _PAGE
            if last > first:
                self._cpu.mem_map(first, last - first)
                mapped = last
            self._cpu.mem_write(start, content)

    def _make(self) -> Any:
        u = self._unicorn
        if self._wide:
            return u.Uc(u.UC_ARCH_ARM64, u.UC_MODE_ARM)
        cpu = u.Uc(u.UC_ARCH_ARM, u.UC_MODE_ARM)
        arm = require("unicorn.arm_const", extra="tee-emul")
        # Switch the floating-point and vector unit on: full access to coprocessors 10 and 11, then its enable bit.
        cpu.reg_write(arm.UC_ARM_REG_C1_C0_2, cpu.reg_read(arm.UC_ARM_REG_C1_C0_2) | 0xF << 20)
        cpu.reg_write(arm.UC_ARM_REG_FPEXC, 1 << 30)
        return cpu

    def run(self) -> tuple[int, dict[str, int]]:
        """Call the entry; return all instructions and those of each function together with what it calls."""
        arguments = (self._areas.weights, self._areas.inputs, self._areas.outputs, self._areas.arena)
        self._set(arguments)
        starts, counts, current = self._image.functions, {"": 0}, [""]
        # Back in the entry, what follows belongs to no step until the next one begins.
        entry, after = self._image.entry, min((a for a in starts if a > self._image.entry), default=1 << 63)

        def block(cpu: Any, address: int, size: int, data: Any) -> None:
            name = starts.get(address, "")
            if name.startswith("edgeward_step_"):
                current[0] = name
                counts.setdefault(name, 0)
            elif entry <= address < after:
                current[0] = ""
            counts[current[0]] += size // 4

        self._cpu.hook_add(self._unicorn.UC_HOOK_BLOCK, block)
        try:
            self._cpu.emu_start(self._image.entry, _RETURN)
        except self._unicorn.UcError as error:
            raise ConfigError(
                "the emitted program does not run", expected="its own memory only", came=str(error)
            ) from error
        if self._result():
            raise ConfigError("the program refused its pointers")
        return sum(counts.values()), counts

    def _set(self, arguments: Sequence[int]) -> None:
        stack = _DATA - _STACK - 64
        if self._wide:
            arm = require("unicorn.arm64_const", extra="tee-emul")
            registers = [getattr(arm, f"UC_ARM64_REG_X{i}") for i in range(4)]
            stack_pointer, link = arm.UC_ARM64_REG_SP, arm.UC_ARM64_REG_LR
        else:
            arm = require("unicorn.arm_const", extra="tee-emul")
            registers = [getattr(arm, f"UC_ARM_REG_R{i}") for i in range(4)]
            stack_pointer, link = arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR
        for register, value in zip([*registers, stack_pointer, link], [*arguments, stack, _RETURN], strict=True):
            self._cpu.reg_write(register, value)

    def _result(self) -> int:
        name = ("unicorn.arm64_const", "UC_ARM64_REG_X0") if self._wide else ("unicorn.arm_const", "UC_ARM_REG_R0")
        return int(self._cpu.reg_read(getattr(require(name[0], extra="tee-emul"), name[1]))) & 0xFFFFFFFF

    def outputs(self, program: Program) -> tuple[np.ndarray, ...]:
        """Return the outputs as int8 [1, bytes]."""
        read = [bytes(self._cpu.mem_read(a, n)) for a, n in zip(self._areas.made, program.output_bytes, strict=True)]
        return tuple(np.frombuffer(content, np.int8)[None] for content in read)
