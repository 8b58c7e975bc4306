"""Units in and out: '256KiB', '20ms', '1%' to numbers, and numbers to text a person reads."""

from __future__ import annotations

import math
import re

from edgeward.core.errors import ConfigError

_SCALE: dict[str, dict[str, float]] = {
    "B": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30},
    "s": {"S": 1, "MS": 1e-3, "US": 1e-6, "NS": 1e-9},
    "J": {"J": 1, "MJ": 1e-3, "UJ": 1e-6, "NJ": 1e-9, "PJ": 1e-12},
    "": {"": 1, "%": 1e-2, "K": 1e3, "M": 1e6, "G": 1e9},
}


def parse_quantity(text: str | float, unit: str, *, name: str = "value") -> float:
    """Read a number with an optional suffix of the given unit ('B', 's', 'J' or '' for counts and fractions).

    >>> parse_quantity("256KiB", "B"), parse_quantity("20ms", "s"), parse_quantity("1%", ""), parse_quantity(3, "B")
    (262144.0, 0.02, 0.01, 3.0)
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and math.isfinite(text):
        return float(text)
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ%]*)\s*", str(text))
    suffix = match.group(2).replace("µ", "u").upper() if match else ""
    scales = _SCALE[unit]
    value = float(match.group(1)) * scales.get(suffix, 1.0) if match else math.nan
    if (suffix in scales or suffix == "") and math.isfinite(value):
        return value
    raise ConfigError(
        f"{name} is not a quantity",
        expected=f"a finite number, optionally with one of {', '.join(s for s in scales if s)}",
        came=repr(text),
        fix=f'write for instance "{ {"B": "256KiB", "s": "20ms", "J": "5mJ", "": "1%"}[unit] }"',
    )


def human(value: float, unit: str) -> str:
    """Write a number with its unit at a readable scale.

    >>> human(3072, "B"), human(0.0123, "s"), human(2.5e-6, "J"), human(1_500_000, "MAC")
    ('3.0 KiB', '12.3 ms', '2.5 µJ', '1.5 MMAC')
    """
    if unit == "B":
        for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} B"
    if unit in ("s", "J"):
        for prefix, scale in (("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12)):
            if value >= scale:
                return f"{value / scale:.1f} {prefix}{unit}"
        return f"{value:.2g} {unit}"
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()
