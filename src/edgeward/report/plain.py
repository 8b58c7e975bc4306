"""Plain JSON only: what may enter a report, and what is refused because it could hold records."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from edgeward.core.errors import DataError

MAX_TEXT = 20_000
MAX_DEPTH = 12
MAX_LIST = 128
_LONG_LISTS = frozenset({"roc", "layers", "attacks", "candidates", "failed"})
_MAX_LONG_LIST = 4096


def plain(value: object, name: str = "report") -> Any:
    """Return `value` as plain JSON: tuples become lists, numbers that are not finite become null.

    Guarantee: the result holds no tensor, array, bytes or image, no text over 20,000 characters, and, outside the
    report's own tables, no list of more than 128 entries; a caller who writes a record as short lists or as text is
    not stopped. Errors: one `DataError` naming every place that is refused.

    >>> plain({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    problems: list[str] = []
    result = _convert(value, name, "", 0, problems)
    if problems:
        raise DataError(
            f"{len(problems)} value{'s' if len(problems) != 1 else ''} cannot go into a report:\n    "
            + "\n    ".join(problems[:20]),
            expected="plain JSON values: text, numbers, true/false, null, short lists and tables of them",
            came=problems[0],
            fix="put aggregates (means, counts, intervals, digests) into reports, never records or per-record scores",
        )
    return result


def _convert(value: object, path: str, key: str, depth: int, problems: list[str]) -> Any:
    if depth > MAX_DEPTH:
        problems.append(f"{path}: nested deeper than {MAX_DEPTH} levels")
        return None
    if isinstance(value, Mapping):
        return _table(value, path, depth, problems)
    if isinstance(value, (list, tuple)):
        longest = _MAX_LONG_LIST if key in _LONG_LISTS else MAX_LIST
        if len(value) > longest:
            problems.append(f"{path}: a list of {len(value)} entries, at most {longest} are allowed")
            return None
        return [_convert(item, f"{path}[{i}]", "", depth + 1, problems) for i, item in enumerate(value)]
    return _scalar(value, path, problems)


def _table(value: Mapping[Any, Any], path: str, depth: int, problems: list[str]) -> dict[str, Any]:
    problems += [f"{path}: the key {key!r} is not text" for key in value if not isinstance(key, str)]
    if len(value) > _MAX_LONG_LIST:
        problems.append(f"{path}: a table of {len(value)} entries, at most {_MAX_LONG_LIST} are allowed")
        return {}
    texts = {key: item for key, item in value.items() if isinstance(key, str)}
    return {key: _convert(item, f"{path}.{key[:80]}", key, depth + 1, problems) for key, item in texts.items()}


def _scalar(value: object, path: str, problems: list[str]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            problems.append(f"{path}: a text of {len(value)} characters, at most {MAX_TEXT} are allowed")
            return ""
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    problems.append(f"{path}: a {type(value).__module__}.{type(value).__qualname__}")
    return None
