"""`SecureWorldProfile`: memory, switch, copy and arithmetic of the secure world of one device class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.devices.figure import Figure

Isolation = Literal["none", "educational", "vendor"]
SecureOperatorClass = Literal["gemm", "depthwise", "elementwise"]

ISOLATIONS: tuple[Isolation, ...] = ("none", "educational", "vendor")
"""No boundary in hardware; a boundary without secure boot or protected memory; what the vendor says, not checked
here.
"""

SECURE_OPERATOR_CLASSES: tuple[SecureOperatorClass, ...] = ("gemm", "depthwise", "elementwise")


@final
@dataclass(frozen=True)
class SecureWorldProfile:
    """What a trusted application gets on one device class, each number a `Figure`.

    Units: bytes; instructions of the device's own instruction set; `instructions_per_mac[class]` per
    multiply-accumulate ("elementwise": per output element); `instructions_per_cycle` of one core in secure code. A
    memref is a parameter in shared memory: `memref_instructions` where it is registered once,
    `temporary_memref_instructions` where it is mapped for one call. `handover_instructions_per_element` is what the
    normal world spends to round and write one tap element. `debug_*` are the same for the default, unoptimised build
    of the kit; None where unknown.
    """

    implementation: str
    hardware_isolation: Isolation
    isolation_note: str
    secure_dram_bytes: Figure
    ta_ram_bytes: Figure
    stack_bytes: Figure
    switch_instructions: Figure
    open_session_instructions: Figure
    memref_instructions: Figure
    temporary_memref_instructions: Figure
    copy_instructions_per_byte: Figure
    handover_instructions_per_element: Figure
    instructions_per_cycle: Figure
    instructions_per_mac: Mapping[SecureOperatorClass, Figure]
    debug_switch_instructions: Figure | None = None
    debug_copy_instructions_per_byte: Figure | None = None

    def figures(self) -> Iterator[tuple[str, str, Figure]]:
        """Yield (label, unit, figure) for every number."""
        yield "secure DRAM", "B", self.secure_dram_bytes
        yield "RAM for one application", "B", self.ta_ram_bytes
        yield "stack", "B", self.stack_bytes
        yield "switch (no-op round trip)", "instr", self.switch_instructions
        if self.debug_switch_instructions is not None:
            yield "switch, debug build", "instr", self.debug_switch_instructions
        yield "opening a session", "instr", self.open_session_instructions
        yield "registered memref", "instr", self.memref_instructions
        yield "temporary memref", "instr", self.temporary_memref_instructions
        yield "copy", "instr/B", self.copy_instructions_per_byte
        if self.debug_copy_instructions_per_byte is not None:
            yield "copy, debug build", "instr/B", self.debug_copy_instructions_per_byte
        yield "hand-over of a tap", "instr/element", self.handover_instructions_per_element
        yield "rate", "instr/cycle", self.instructions_per_cycle
        for name in SECURE_OPERATOR_CLASSES:
            if name in self.instructions_per_mac:
                unit = "instr/element" if name == "elementwise" else "instr/MAC"
                yield name, unit, self.instructions_per_mac[name]

    def texts(self) -> list[tuple[str, str]]:
        """Return (label, text) for what is not a number."""
        return [
            ("implementation", self.implementation),
            ("hardware isolation", f"{self.hardware_isolation}: {self.isolation_note}"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form: texts as they are, every number as {"value", "source", "basis"}."""
        plain: dict[str, Any] = {}
        for name, value in vars(self).items():
            plain[name] = value.to_json() if isinstance(value, Figure) else value
        plain["instructions_per_mac"] = {name: f.to_json() for name, f in self.instructions_per_mac.items()}
        return plain
