"""`Emulator`: seconds, secure memory and overhead of a split on a device, before it runs there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from edgeward.backends.tee.instruction_model import InstructionModel, calibrated, from_profile
from edgeward.backends.tee.normal_time import NormalTime, normal_time
from edgeward.backends.tee.sealing import ENVELOPE_BYTES
from edgeward.backends.tee.split_shape import SplitShape, describe
from edgeward.core.errors import ConfigError
from edgeward.devices import Basis, DeviceProfile, Figure, Precision, weakest
from edgeward.graph.network import Network

if TYPE_CHECKING:
    from edgeward.backends.tee.deployment import SplitDeployment, Transfer

OVERHEAD = "(T - T_normal) / T_normal; T_normal: the unprotected network alone in the normal world"
MEMORY_OVERHEAD = "secure weights / weights of the unprotected network, one byte each"
HEADROOM = 0.10
"""The part of the application's memory that stays free."""
CODE_BYTES = Figure(40 * 1024, "upper bound for the code of a trusted application; not measured", "assumed")


@final
@dataclass(frozen=True)
class Estimate:
    """What a split is expected to take for one record; modelled, never measured on the device.

    `seconds_normal` is the unprotected network alone, `seconds_total` from the record to the answer, `period_seconds`
    the time between answers when records follow each other and the worlds overlap. `seconds` splits the work by term
    (their sum exceeds `seconds_total` by what overlaps), `instructions` the same for the secure world, `ram` the
    secure memory by use. `saved` is what the normal world no longer does once the last tap is there: float "work" and
    "calls" of operators (negative where it does more than the unprotected network). `basis` is the weakest among the
    figures used, `sources` what they are.
    """

    name: str
    transfer: Transfer
    seconds_normal: float
    seconds_total: float
    period_seconds: float
    switches: int
    bytes: int
    secure_ram_bytes: int
    secure_ram_limit: int
    memory_overhead: float
    seconds: Mapping[str, float]
    instructions: Mapping[str, float]
    ram: Mapping[str, int]
    basis: Basis
    sources: tuple[str, ...]
    definition: str = OVERHEAD
    saved: Mapping[str, float] = field(default_factory=dict)

    @property
    def overhead(self) -> float:
        """Latency on top of the unprotected network, by `definition`; infinite where that takes no time."""
        if not self.seconds_normal:
            return float("inf")
        return (self.seconds_total - self.seconds_normal) / self.seconds_normal

    @property
    def fits(self) -> bool:
        """Whether the secure memory stays within the application's, less the headroom."""
        return self.secure_ram_bytes <= self.secure_ram_limit

    def to_json(self) -> dict[str, Any]:
        """Return the plain form with `overhead` and `fits`."""
        plain = {**vars(self), "overhead": self.overhead, "fits": self.fits, "sources": list(self.sources)}
        return plain | {name: dict(plain[name]) for name in ("seconds", "instructions", "ram", "saved")}


@final
class Emulator:
    """The performance emulator of one device: switch + copy + secure compute, in batch or as a stream.

    batch: T = T_taps + T_handover + T_switch + T_memref + T_copy + T_secure. stream: two processors, one per world; the
    secure one takes each tap in the order in which it is ready and runs every operator whose taps have come; T is the
    makespan. The trusted application of this release takes taps one by one (one entry each), but runs the whole secure
    network in the last entry, so that "stream" is a plan. Guarantee: modelled; instruction counts agree with
    counted ones as `python -m benchmarks tee-emulator` prints; the rest is as good as the profile's figures.
    Source: the performance emulator of MirrorNet (ICCAD 2023, abstract); formulas are ours.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        *,
        model: InstructionModel | None = None,
        precision: Precision = "float32",
        code_bytes: Figure = CODE_BYTES,
        secure_ram: float | None = None,
    ) -> None:
        """Take constants from `profile`, instruction counts from `model` (default: the calibrated one).

        `precision` is that of the normal world's kernels, `secure_ram` an own limit in bytes below the profile's.
        """
        self._profile, self._world = profile, profile.need_secure_world()
        self._model = model or calibrated() or from_profile(self._world)
        self._precision, self._code = precision, code_bytes
        available = self._world.ta_ram_bytes.value * (1 - HEADROOM)
        self._limit = int(available if secure_ram is None else min(available, secure_ram))

    @property
    def model(self) -> InstructionModel:
        """The instruction model in use."""
        return self._model

    def digest(self) -> str:
        """Return the first 16 hex digits of a SHA-256 over all that estimates depend on: profile, model, limits."""
        text = repr((self._profile, self._model, self._precision, self._code, self._limit))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def estimate(self, split: SplitShape | SplitDeployment, transfer: Transfer | None = None) -> Estimate:
        """Return what `split` is expected to take; `transfer` overrides the split's own."""
        shape = describe(split)
        mode = transfer or shape.transfer
        if mode not in ("batch", "stream"):
            raise ConfigError("unknown transfer", expected="batch or stream", came=repr(mode))
        normal = normal_time(shape.normal, self._profile, self._precision)
        alone = normal_time(shape.victim, self._profile, self._precision) if shape.victim is not None else normal
        order = sorted(range(len(shape.taps)), key=lambda tap: (normal.ready[shape.taps[tap]], tap))
        entries = [order] if mode == "batch" else [[tap] for tap in order]
        work = [self._entry(shape, entry, done) for entry, done in zip(entries, _before(entries), strict=True)]
        handover = [self._seconds(n * self._world.handover_instructions_per_element.value) for n in shape.tap_bytes]
        total = _makespan(shape, normal, entries, [self._seconds(sum(w.values())) for w in work], handover)
        instructions = {term: sum(w[term] for w in work) for term in ("switch", "memref", "copy", "secure")}
        seconds = {
            "normal": max((normal.ready[tap] for tap in shape.taps), default=0.0),
            "handover": sum(handover),
            **{term: self._seconds(count) for term, count in instructions.items()},
        }
        busy = seconds["normal"] + seconds["handover"], self._seconds(sum(instructions.values()))
        ram = self._ram(shape)
        figures = self._used(normal, alone)
        calls = alone.all_calls - max((normal.calls[shape.taps[tap]] for tap in order), default=0.0)
        saved = {"work": alone.total - seconds["normal"] - calls, "calls": calls}
        return Estimate(
            shape.name,
            mode,
            alone.total,
            total,
            max(busy),
            len(entries),
            sum(shape.tap_bytes),
            sum(ram.values()),
            self._limit,
            shape.weight_bytes / max(_weights(shape.victim or shape.normal), 1),
            seconds,
            instructions,
            ram,
            weakest(figures),
            tuple(dict.fromkeys(f"{figure.basis}: {figure.source}" for figure in figures)),
            saved=saved,
        )

    def _entry(self, shape: SplitShape, taps: Sequence[int], done: frozenset[int]) -> dict[str, float]:
        """Return the instructions of one entry into the secure world that brings `taps` after those of `done`."""
        world, here = self._world, done | frozenset(taps)
        steps = [step for step in shape.steps if step.taps <= here and not (done and step.taps <= done)]
        answers = here == frozenset(range(len(shape.taps)))
        copied = sum(shape.tap_bytes[tap] for tap in taps) + (shape.output_bytes if answers else 0)
        copying = self._model.copying(copied, len(taps) + answers)
        return {
            "switch": world.switch_instructions.value,
            "memref": world.memref_instructions.value * (2 if answers else 1),
            "copy": world.copy_instructions_per_byte.value * copied if copying is None else copying,
            "secure": self._model.total(steps),
        }

    def _ram(self, shape: SplitShape) -> dict[str, int]:
        return {
            "code": int(self._code.value),
            "weights": shape.weight_bytes + ENVELOPE_BYTES,
            "arena": shape.arena_bytes,
            "inputs and answer": sum(shape.tap_bytes) + shape.output_bytes,
            "stack": int(self._world.stack_bytes.value),
        }

    def _seconds(self, instructions: float) -> float:
        return instructions / (self._world.instructions_per_cycle.value * self._profile.f_hz.value)

    def _used(self, normal: NormalTime, alone: NormalTime) -> list[Figure]:
        world, rates = self._world, f"rates of the profile '{self._profile.name}'"
        return [
            Figure(0.0, f"normal world: {rates}", weakest([Figure(0.0, "", t.basis) for t in (normal, alone)])),
            Figure(0.0, f"secure operators: {self._model.source}", self._model.basis),
            world.switch_instructions,
            world.memref_instructions,
            world.copy_instructions_per_byte,
            world.handover_instructions_per_element,
            world.instructions_per_cycle,
            self._code,
        ]


def _before(entries: Sequence[Sequence[int]]) -> list[frozenset[int]]:
    """Return the taps that came before each entry."""
    found, seen = [], frozenset[int]()
    for entry in entries:
        found.append(seen)
        seen |= frozenset(entry)
    return found


def _makespan(
    shape: SplitShape,
    normal: NormalTime,
    entries: Sequence[Sequence[int]],
    work: Sequence[float],
    handover: Sequence[float],
) -> float:
    """Return when the last entry ends: each starts when its taps were handed over and the one before has ended."""
    end, written = 0.0, 0.0
    for entry, took in zip(entries, work, strict=True):
        written += sum(handover[tap] for tap in entry)
        ready = max(normal.ready[shape.taps[tap]] for tap in entry) + written
        end = max(end, ready) + took
    return end


def _weights(network: Network) -> int:
    return sum(network.tensors[key].numel() for key in network.parameters or network.tensors)
