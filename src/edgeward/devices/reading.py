"""Reading a device profile from TOML text: everything that is wrong with it, in one error."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from edgeward.core.errors import ConfigError
from edgeward.devices.figure import BASES, Figure
from edgeward.devices.profile import KINDS, OPERATOR_CLASSES, PRECISIONS, DeviceProfile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("name", "title", "kind", "isa", "runtime")
_REQUIRED = ("f_hz", "cores", "ram_bytes", "op_overhead_seconds", "bytes_per_second", "band")
_OPTIONAL = ("flash_bytes", "power_watt", "picojoule_per_mac")
_MAY_BE_ZERO = ("op_overhead_seconds",)
_WHOLE = ("cores", "ram_bytes", "flash_bytes")
_LONGEST = 400
_SHOWN = 40


def parse_profile(text: str, origin: str) -> DeviceProfile:
    """Build a profile from TOML `text`; `origin` names it in the error.

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
    _keys(data, (*_TEXTS, *_REQUIRED, "mac_per_second"), _OPTIONAL, "", problems)
    texts = {name: _text(data, name, problems) for name in _TEXTS}
    figures = {name: _figure(data[name], name, problems) for name in (*_REQUIRED, *_OPTIONAL) if name in data}
    rates = _rates(data.get("mac_per_second"), problems)
    problems += _joint(data)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ConfigError(
            f"the device profile {origin} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n    "
            + "\n    ".join([*problems[:_SHOWN], *more]),
            expected='every number as { value = ..., source = "...", basis = "measured | published | derived" }',
            fix="correct the lines above, or start from a shipped profile (`edgeward devices show NAME`)",
        )
    return DeviceProfile(**texts, **figures, mac_per_second=rates)  # type: ignore[arg-type]


def _keys(
    table: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], where: str, problems: list[str]
) -> None:
    problems += [f"{where}{_quoted(key)}: unknown key" for key in table if key not in (*required, *optional)]
    problems += [f"{where}{key}: missing" for key in required if key not in table]


def _text(data: Mapping[str, Any], name: str, problems: list[str]) -> str:
    value = data.get(name, "missing")
    allowed = {"kind": KINDS}.get(name)
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
    if where in _WHOLE and value != int(value):
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
