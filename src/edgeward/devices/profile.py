"""`DeviceProfile`: clock, memory, arithmetic throughput, overheads and power of one device class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.core.errors import ConfigError
from edgeward.core.units import human
from edgeward.devices.figure import Figure
from edgeward.devices.secure_world import SecureWorldProfile

Kind = Literal["mcu", "linux", "phone", "x86"]
Precision = Literal["float32", "int8", "binary"]
OperatorClass = Literal["conv", "pointwise", "depthwise", "linear"]

KINDS: tuple[Kind, ...] = ("mcu", "linux", "phone", "x86")
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "binary")
OPERATOR_CLASSES: tuple[OperatorClass, ...] = ("conv", "pointwise", "depthwise", "linear")

DEPTHWISE_SLOWDOWN = 5.0
"""Instructions per MAC of a depthwise over a pointwise int8 kernel on Cortex-M: 13.4 / 2.7 (CMSIS-NN, counted)."""

FLOAT_SLOWDOWN = 3.0
"""int8 over float32 rate on a Cortex-M4 with FPU: 6.165 / 2.084 inferences/s (MLPerf Tiny v1.2, CY8CPROTO-062, IC)."""

_SAME_PRECISION: Mapping[OperatorClass, tuple[OperatorClass, ...]] = {
    "conv": ("pointwise", "linear", "depthwise"),
    "pointwise": ("conv", "linear", "depthwise"),
    "linear": ("pointwise", "conv", "depthwise"),
    "depthwise": ("pointwise", "conv", "linear"),
}
_OTHER_PRECISION: Mapping[Precision, tuple[tuple[Precision, float, str], ...]] = {
    "int8": (("float32", 1.0, "int8 taken as fast as float32"),),
    "float32": (("int8", 1 / FLOAT_SLOWDOWN, f"float32 taken as int8 / {FLOAT_SLOWDOWN:g}"),),
    "binary": (
        ("int8", 1.0, "binary taken as int8: no binary kernel is assumed"),
        ("float32", 1.0, "binary taken as float32: no binary kernel is assumed"),
    ),
}


@final
@dataclass(frozen=True)
class DeviceProfile:
    """What one device offers, each number a `Figure` with its source and basis.

    Units: `f_hz` in Hz, `ram_bytes` and `flash_bytes` in bytes, `mac_per_second[precision][class]` in MAC/s on one
    core with the software named by `runtime`, `op_overhead_seconds` per operator call, `bytes_per_second` of the memory
    that feeds the operators. Either `power_watt` (while computing) or `picojoule_per_mac` (whole board, int8
    convolution) is set. `flash_bytes` is None where weights are loaded into RAM. `band` is the factor within which a
    latency predicted from this profile is expected to lie: assumed, not proved. `secure_world` is None where the device
    has none, or nobody described it.
    """

    name: str
    title: str
    kind: Kind
    isa: str
    runtime: str
    f_hz: Figure
    cores: Figure
    ram_bytes: Figure
    mac_per_second: Mapping[Precision, Mapping[OperatorClass, Figure]]
    op_overhead_seconds: Figure
    bytes_per_second: Figure
    band: Figure
    flash_bytes: Figure | None = None
    power_watt: Figure | None = None
    picojoule_per_mac: Figure | None = None
    secure_world: SecureWorldProfile | None = None

    def rate(self, precision: Precision, operator_class: OperatorClass) -> Figure:
        """Return the MAC/s of an operator class at a precision; what the profile lacks is filled in and "derived".

        Rule, first match: the profile's own figure; another class of the same precision (depthwise is taken as 1/5 of
        the other classes, the others as no faster than depthwise); the same class of another precision (int8 as fast
        as float32, float32 a third of int8, binary as fast as int8).
        """
        found = self._same_precision(precision, operator_class)
        if found is not None:
            return found
        for other, factor, rule in _OTHER_PRECISION[precision]:
            found = self._same_precision(other, operator_class)
            if found is not None:
                return found.scaled(factor, rule)
        raise _lacking(self.name, "mac_per_second", "a rate for float32 or int8")

    def _same_precision(self, precision: Precision, operator_class: OperatorClass) -> Figure | None:
        given = self.mac_per_second.get(precision, {})
        if operator_class in given:
            return given[operator_class]
        for other in _SAME_PRECISION[operator_class]:
            if other in given:
                factor = 1 / DEPTHWISE_SLOWDOWN if operator_class == "depthwise" else 1.0
                return given[other].scaled(factor, f"{operator_class} taken as {other} x {factor:g}")
        return None

    def active_power_watt(self) -> Figure:
        """Return the power while computing: `power_watt`, or energy per MAC x MAC/s of an int8 convolution.

        Microcontroller boards draw nearly the same power whatever network they run, so that a layer that takes longer
        per MAC also costs more per MAC.
        """
        if self.power_watt is not None:
            return self.power_watt
        if self.picojoule_per_mac is None:
            raise _lacking(self.name, "energy", "power_watt or picojoule_per_mac")
        rate = self.rate("int8", "conv")
        return self.picojoule_per_mac.scaled(rate.value * 1e-12, "x MAC/s of an int8 convolution")

    def figures(self) -> Iterator[tuple[str, str, Figure]]:
        """Yield (label, unit, figure) for every number of the profile."""
        yield "clock", "Hz", self.f_hz
        yield "cores", "", self.cores
        yield "RAM", "B", self.ram_bytes
        if self.flash_bytes is not None:
            yield "flash", "B", self.flash_bytes
        for precision in PRECISIONS:
            for operator_class in OPERATOR_CLASSES:
                figure = self.mac_per_second.get(precision, {}).get(operator_class)
                if figure is not None:
                    yield f"{precision} {operator_class}", "MAC/s", figure
        yield "overhead per operator", "s", self.op_overhead_seconds
        yield "memory", "B/s", self.bytes_per_second
        if self.power_watt is not None:
            yield "power", "W", self.power_watt
        if self.picojoule_per_mac is not None:
            yield "board energy per MAC", "pJ", self.picojoule_per_mac
        yield "prediction within a factor", "", self.band
        if self.secure_world is not None:
            for label, unit, figure in self.secure_world.figures():
                yield f"secure world: {label}", unit, figure

    def need_secure_world(self) -> SecureWorldProfile:
        """Return the secure world's profile. Raises: `ConfigError` where there is none."""
        if self.secure_world is None:
            raise _lacking(self.name, "secure_world", "a section [secure_world]")
        return self.secure_world

    def describe(self) -> list[tuple[str, str]]:
        """Return (label, text) rows for a table; every number shows its basis and source."""
        rows = [
            ("name", self.name),
            ("device", self.title),
            ("kind", self.kind),
            ("instruction set", self.isa),
            ("software behind the rates", self.runtime),
        ]
        if self.secure_world is not None:
            rows += [(f"secure world: {label}", text) for label, text in self.secure_world.texts()]
        rows += [(label, f"{_shown(f.value, unit)} ({f.basis}: {f.source})") for label, unit, f in self.figures()]
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the plain form: texts as they are, every number as {"value", "source", "basis"}."""
        single = ("f_hz", "cores", "ram_bytes", "flash_bytes", "op_overhead_seconds", "bytes_per_second")
        plain: dict[str, Any] = {n: getattr(self, n) for n in ("name", "title", "kind", "isa", "runtime")}
        for name in (*single, "power_watt", "picojoule_per_mac", "band"):
            figure = getattr(self, name)
            plain[name] = figure.to_json() if figure is not None else None
        plain["mac_per_second"] = {
            precision: {name: figure.to_json() for name, figure in rates.items()}
            for precision, rates in self.mac_per_second.items()
        }
        if self.secure_world is not None:
            plain["secure_world"] = self.secure_world.to_json()
        return plain


def _lacking(name: str, what: str, expected: str) -> ConfigError:
    return ConfigError(
        f"the device profile '{name}' has no {what}", expected=expected, came="none", fix="add it to the profile"
    )


def _shown(value: float, unit: str) -> str:
    plain = unit in ("W", "pJ", "") or unit.startswith("instr/")
    return f"{value:g} {unit}".rstrip() if plain else human(value, unit)
