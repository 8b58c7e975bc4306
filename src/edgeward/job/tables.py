"""TOML in and out: parsing with one kind of error, checking tables key by key, and writing."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, final

from edgeward.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str, *, name: str) -> dict[str, Any]:
    """Parse TOML, or raise a `ConfigError` with the line and column."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(
            f"'{name}' is not TOML",
            expected="a TOML document",
            came=str(error)[:200],
            fix="check quotes, brackets and equals signs at that place",
        ) from error
    return document


@final
class Checker:
    """Collects everything that is wrong with a document, so that it can be reported at once."""

    def __init__(self) -> None:
        """Start without problems."""
        self.unknown: list[str] = []
        self.wrong: list[str] = []

    def keys(self, section: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """Note every key of `table` that is not known, with the nearest known one."""
        names = sorted(known)
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                place = f"[{section}] {key}" if section else key
                self.unknown.append(place + (f" (did you mean '{near[0]}'?)" if near else ""))

    def take(self, section: str, table: Mapping[str, Any], key: str, kinds: tuple[type, ...], default: Any) -> Any:
        """Return `table[key]` when it has one of `kinds` (a bool is no number), else note it and return `default`."""
        if key not in table:
            return default
        value = table[key]
        if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
            return value
        wanted = " or ".join(_WORDS[kind] for kind in kinds)
        place = f"[{section}] {key}" if section else key
        self.wrong.append(f"{place}: expected {wanted}, came {_WORDS.get(type(value), type(value).__name__)}")
        return default

    def table(self, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Return the table called `key`, empty when absent or of another type (which is noted)."""
        found: Mapping[str, Any] = self.take("", document, key, (dict,), {})
        return found

    def finish(self, name: str) -> None:
        """Raise one `ConfigError` listing every problem; do nothing when there is none."""
        problems = [f"unknown key {u}" for u in self.unknown] + self.wrong
        if problems:
            raise ConfigError(
                f"{name} cannot be used:\n    " + "\n    ".join(problems),
                expected="only the keys of the job file's schema, each of its type",
                came=f"{len(problems)} problem{'s' if len(problems) != 1 else ''}",
                fix="correct the lines above; `edgeward protect --demo --dump-config` prints a complete job file",
            )


_WORDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def toml_value(value: Any) -> str:
    r"""Write one value.

    >>> toml_value(["a\n", 1, 2.5, True, {"k": [1]}])
    '["a\\n", 1, 2.5, true, {k = [1]}]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ("nan" if math.isnan(value) else f"{value:+}"[:4])
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    raise ConfigError(
        "a setting cannot be written as TOML",
        expected="texts, numbers, true or false, lists and tables of them",
        came=type(value).__name__,
        fix="give the setting as one of these",
    )


def toml_key(key: str) -> str:
    """Write one key, quoted only where it must be."""
    bare = bool(key) and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else toml_value(key)


def toml_table(title: str, table: Mapping[str, Any]) -> str:
    """Write `[title]` and its lines; None values are left out, an empty table gives an empty text."""
    lines = [f"{toml_key(key)} = {toml_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join([title, *lines]) + "\n" if lines else ""
