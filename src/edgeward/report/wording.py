"""How numbers and names become words: every number with its unit, every name as one harmless line of text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from edgeward.core.units import human

NOT_MEASURED = "not measured"

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NONCHARACTERS = frozenset({"\ufffe", "\uffff"})


def clean(text: object) -> str:
    """Return `text` on one line, with control, direction-changing and unpaired characters made visible as U+FFFD.

    Names of recipes, layers and data sets come from others; a right-to-left override in one must not reorder a verdict.

    >>> clean("a\\nb"), clean("safe\\u202eton") == "safe\\ufffdton"
    ('a b', True)
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    kept = [" " if c in "\t\n\r" else c for c in text]
    hidden = [unicodedata.category(c) in _INVISIBLE or c in _NONCHARACTERS for c in kept]
    return "".join("\ufffd" if bad else c for c, bad in zip(kept, hidden, strict=True))


def shorten(text: object, width: int) -> str:
    """Return `text` cleaned and cut to `width` characters.

    >>> shorten("abcdefgh", 5)
    'abcd…'
    """
    whole = clean(text)
    return whole if len(whole) <= width else whole[: width - 1] + "…"


def finite(value: object) -> float | None:
    """Return `value` as a number, or None where it is missing or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def percent(value: object, digits: int = 1) -> str:
    """Write a fraction as a percentage; small non-zero ones keep two digits.

    >>> percent(0.0456), percent(0.00031), percent(0), percent(None)
    ('4.6 %', '0.031 %', '0.0 %', 'not measured')
    """
    number = finite(value)
    if number is None:
        return NOT_MEASURED
    scaled = 100 * number
    if 0 < abs(scaled) < 5 * 10**-digits:
        return f"{scaled:.2g} %"
    return f"{scaled:.{digits}f} %"


def ratio(value: object) -> str:
    """Write a dimensionless number such as an AUC with three decimals."""
    number = finite(value)
    return NOT_MEASURED if number is None else f"{number:.3f}"


def amount(value: object, unit: str) -> str:
    """Write a number with its unit at a readable scale; `fraction` becomes a percentage.

    >>> amount(3072, "B"), amount(0.1, "fraction"), amount(0, "s"), amount(-2048, "B")
    ('3.0 KiB', '10.0 %', '0 s', '-2.0 KiB')
    """
    number = finite(value)
    if number is None:
        return NOT_MEASURED
    if unit == "fraction":
        return percent(number)
    return f"-{human(-number, unit)}" if number < 0 else human(number, unit)


def bounds(estimate: Mapping[str, Any] | None, *, fraction: bool = True) -> str:
    """Write the 95 % interval of an estimate as `[low, high]`, empty where there is none."""
    low, high = interval(estimate)
    if low is None or high is None:
        return ""
    write = percent if fraction else ratio
    return f"[{write(low)}, {write(high)}]"


def interval(estimate: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """Return the two ends of an estimate's interval."""
    if not estimate:
        return None, None
    low, high = estimate["interval"]
    return finite(low), finite(high)


def with_bounds(estimate: Mapping[str, Any] | None, *, fraction: bool = True) -> str:
    """Write an estimate with its 95 % interval.

    >>> with_bounds({"value": 0.05, "interval": [0.03, 0.08], "n": 400, "method": "clopper-pearson"})
    '5.0 % [3.0 %, 8.0 %]'
    """
    if not estimate or finite(estimate["value"]) is None:
        return NOT_MEASURED
    value = percent(estimate["value"]) if fraction else ratio(estimate["value"])
    return f"{value} {bounds(estimate, fraction=fraction)}".rstrip()


def count(value: object) -> str:
    """Write a whole number with thousands separators.

    >>> count(16000), count(None)
    ('16,000', 'not measured')
    """
    number = finite(value)
    return NOT_MEASURED if number is None else f"{number:,.0f}"


def flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested plain JSON as (dotted name, text) rows.

    >>> flat({"a": {"b": 1, "c": [1, 2]}, "d": None})
    [('a.b', '1'), ('a.c', '1, 2'), ('d', 'none')]
    """
    if isinstance(value, Mapping) and value:
        return [row for key in value for row in flat(value[key], f"{prefix}.{clean(key)}" if prefix else clean(key))]
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return [row for i, item in enumerate(value) for row in flat(item, f"{prefix}[{i}]")]
    return [(prefix, _scalar(value))]


def _scalar(value: object) -> str:
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_scalar(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value)
