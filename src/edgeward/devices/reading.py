"""Reading a device profile from TOML text: everything that is wrong with it, in one error."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeward.core.errors import ConfigError
from edgeward.devices.figure import BASES, Figure
from edgeward.devices.profile import KINDS, OPERATOR_CLASSES, PRECISIONS, DeviceProfile
from edgeward.devices.secure_world import ISOLATIONS, SECURE_OPERATOR_CLASSES, SecureWorldProfile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("name", "title", "kind", "isa", "runtime")
_REQUIRED = ("f_hz", "cores", "ram_bytes", "op_overhead_seconds", "bytes_per_second", "band")
_OPTIONAL = ("flash_bytes", "power_watt", "picojoule_per_mac")
_MAY_BE_ZERO = ("op_overhead_seconds",)
_WHOLE = ("cores", "ram_bytes", "flash_bytes", "secure_dram_bytes", "ta_ram_bytes", "stack_bytes")
_SECURE_TEXTS = ("implementation", "hardware_isolation", "isolation_note")
_SECURE_REQUIRED = (
    "secure_dram_bytes",
    "ta_ram_bytes",
    "stack_bytes",
    "switch_instructions",
    "open_session_instructions",
    "memref_instructions",
    "temporary_memref_instructions",
    "copy_instructions_per_byte",
    "handover_instructions_per_element",
    "instructions_per_cycle",
)
_SECURE_OPTIONAL = ("debug_switch_instructions", "debug_copy_instructions_per_byte")
_LONGEST = 400
_SHOWN = 40


def parse_profile(text: str, origin: str, shipped: Callable[[str], str | None] = lambda name: None) -> DeviceProfile:
    """Build a profile from TOML `text`; `origin` names it in the error.

    `extends = "NAME"` takes every key and rate that the text does not give from the profile whose text `shipped`
    returns (None for an unknown name); one step, no chains.

    Raises `ConfigError` listing every unknown key, missing key and impossible number.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(
            f"the device profile {origin} is not TOML",
            expected="a TOML document",
            came=str(error)[:_LONGEST],
            fix="compare it with a shipped profile (`edgeward devices show NAME`)",
        ) from None
    problems: list[str] = []
    data = _extended(data, shipped, problems)
    _keys(data, (*_TEXTS, *_REQUIRED, "mac_per_second"), (*_OPTIONAL, "secure_world"), "", problems)
    texts = {name: _text(data, name, problems) for name in _TEXTS}
    figures = {name: _figure(data[name], name, problems) for name in (*_REQUIRED, *_OPTIONAL) if name in data}
    rates = _rates(data.get("mac_per_second"), problems)
    secure = _secure_world(data["secure_world"], problems) if "secure_world" in data else None
    problems += _joint(data)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ConfigError(
            f"the device profile {origin} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n    "
            + "\n    ".join([*problems[:_SHOWN], *more]),
            expected='{ value = ..., source = "...", basis = "' + " | ".join(BASES) + '" } for every number',
            fix="correct the lines above, or start from a shipped profile (`edgeward devices show NAME`)",
        )
    return DeviceProfile(**texts, **figures, mac_per_second=rates, secure_world=secure)  # type: ignore[arg-type]


def _extended(data: dict[str, Any], shipped: Callable[[str], str | None], problems: list[str]) -> dict[str, Any]:
    if "extends" not in data:
        return data
    own = {key: value for key, value in data.items() if key != "extends"}
    text = shipped(data["extends"]) if isinstance(data["extends"], str) else None
    base: dict[str, Any] = tomllib.loads(text) if text is not None else {"extends": ""}
    if "extends" in base:
        problems.append(f"extends: expected a shipped profile that extends none, came {_quoted(data['extends'])}")
        return own
    rates = own.get("mac_per_second", {})
    if isinstance(rates, Mapping):
        own["mac_per_second"] = {**base["mac_per_second"], **rates}
    energy = ("power_watt", "picojoule_per_mac")
    dropped = energy if any(key in own for key in energy) else ()
    return {**{key: value for key, value in base.items() if key not in dropped}, **own}


def _secure_world(table: Any, problems: list[str]) -> SecureWorldProfile | None:
    if not isinstance(table, Mapping):
        problems.append(f"secure_world: expected a table, came {_quoted(table)}")
        return None
    before, where = len(problems), "secure_world."
    _keys(table, (*_SECURE_TEXTS, *_SECURE_REQUIRED, "instructions_per_mac"), _SECURE_OPTIONAL, where, problems)
    texts = {name: _text(table, name, problems) for name in _SECURE_TEXTS if name in table}
    names = [name for name in (*_SECURE_REQUIRED, *_SECURE_OPTIONAL) if name in table]
    figures = {name: _figure(table[name], f"{where}{name}", problems) for name in names}
    rates, inner = table.get("instructions_per_mac", {}), f"{where}instructions_per_mac"
    if not isinstance(rates, Mapping):
        problems.append(f"{inner}: expected a table of {', '.join(SECURE_OPERATOR_CLASSES)}, came {_quoted(rates)}")
        return None
    _keys(rates, SECURE_OPERATOR_CLASSES, (), f"{inner}.", problems)
    found = {
        name: _figure(rates[name], f"{inner}.{name}", problems) for name in SECURE_OPERATOR_CLASSES if name in rates
    }
    if len(problems) > before:
        return None
    return SecureWorldProfile(**texts, **figures, instructions_per_mac=found)  # type: ignore[arg-type]


def _keys(
    table: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], where: str, problems: list[str]
) -> None:
    problems += [f"{where}{_quoted(key)}: unknown key" for key in table if key not in (*required, *optional)]
    problems += [f"{where}{key}: missing" for key in required if key not in table]


def _text(data: Mapping[str, Any], name: str, problems: list[str]) -> str:
    value = data.get(name, "missing")
    allowed = {"kind": KINDS, "hardware_isolation": ISOLATIONS}.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or not value.isprintable():
        problems.append(f"{name}: expected one line of text, came {_quoted(value)}")
    elif allowed and value not in allowed and name in data:
        problems.append(f"{name}: expected one of {', '.join(allowed)}, came {_quoted(value)}")
    elif name == "name" and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        problems.append(f"name: expected lower-case words joined by '-', came {_quoted(value)}")
    return str(value)


def _figure(entry: Any, where: str, problems: list[str]) -> Figure:
    nothing = Figure(1.0, "", "derived")
    if not isinstance(entry, Mapping):
        problems.append(f"{where}: expected {{ value, source, basis }}, came {_quoted(entry)}")
        return nothing
    before = len(problems)
    _keys(entry, ("value", "source", "basis"), (), f"{where}.", problems)
    problems += _number(entry.get("value", 1.0), where)
    source, basis = entry.get("source", "missing"), entry.get("basis", BASES[0])
    if not isinstance(source, str) or not source.strip() or len(source) > _LONGEST or not source.isprintable():
        problems.append(f"{where}.source: expected the name of a publication, came {_quoted(source)}")
    if basis not in BASES:
        problems.append(f"{where}.basis: expected one of {', '.join(BASES)}, came {_quoted(basis)}")
    return nothing if len(problems) > before else Figure(float(entry["value"]), source, basis)


def _number(value: Any, where: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return [f"{where}.value: expected a number, came {_quoted(value)}"]
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        return [f"{where}.value: expected a finite number below 2^63, came {_quoted(value)}"]
    if value < 0 or (value == 0 and where not in _MAY_BE_ZERO):
        return [f"{where}.value: expected a positive number, came {value}"]
    if where.rpartition(".")[2] in _WHOLE and value != int(value):
        return [f"{where}.value: expected a whole number, came {value}"]
    if where == "band" and value < 1:
        return [f"{where}.value: expected a factor of at least 1, came {value}"]
    return []


def _rates(table: Any, problems: list[str]) -> dict[Any, dict[Any, Figure]]:
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        problems.append(f"mac_per_second: expected tables float32, int8, binary, came {_quoted(table)}")
        return {}
    _keys(table, (), PRECISIONS, "mac_per_second.", problems)
    found: dict[Any, dict[Any, Figure]] = {}
    for precision in PRECISIONS:
        row, where = table.get(precision, {}), f"mac_per_second.{precision}"
        if not isinstance(row, Mapping):
            problems.append(f"{where}: expected a table of {', '.join(OPERATOR_CLASSES)}, came {_quoted(row)}")
            continue
        _keys(row, (), OPERATOR_CLASSES, f"{where}.", problems)
        rates = {name: _figure(row[name], f"{where}.{name}", problems) for name in OPERATOR_CLASSES if name in row}
        if rates:
            found[precision] = rates
    if not found.keys() & {"float32", "int8"}:
        problems.append("mac_per_second: expected at least one rate for float32 or int8")
    return found


def _joint(data: Mapping[str, Any]) -> list[str]:
    if ("power_watt" in data) == ("picojoule_per_mac" in data):
        return ["power_watt, picojoule_per_mac: expected exactly one of the two"]
    return []


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
