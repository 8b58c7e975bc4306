"""Markdown and YAML in which no text from outside can become markup."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgeward.report.tables import Cell, Table
from edgeward.report.wording import clean

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "|": "&#124;"}
_SPECIAL = re.compile(r"([\\`*_\[\]#~$!{}])")
_LEADING = re.compile(r"^(\s*\d*)([-+=.)])(?=[-+=]*(\s|$))")


def escape(text: object) -> str:
    r"""Return `text` as one line of Markdown that reads as written: no markup, table cell, link, mention or HTML.

    >>> escape("a|b <script> *x* https://e.org")
    'a&#124;b &lt;script&gt; \\*x\\* https:&#47;&#47;e.org'
    """
    line = "".join(_ENTITIES.get(c, c) for c in clean(text))
    line = re.sub(r"&(#?)", lambda m: m.group(0).replace("#", "\x00"), line)
    line = _SPECIAL.sub(r"\\\1", line).replace("\x00", "#")
    line = line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
    return _LEADING.sub(r"\1\\\2", line)


def code_block(text: object) -> str:
    """Return `text` as a fenced block whose fence is longer than any in it."""
    body = clean(text)
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", body)), default=0))
    return f"{fence}\n{body}\n{fence}"


def markdown_table(table: Table) -> str:
    """Return a pipe table; a cell's note follows its value in parentheses."""
    head = "| " + " | ".join(escape(column) for column in table.columns) + " |"
    line = "|" + "|".join(" --- " for _ in table.columns) + "|"
    return "\n".join([head, line, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows)])


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"{text} ({escape(cell.note)})" if cell.note else text


def yaml(value: object, indent: int = 0) -> str:
    """Return plain JSON as block YAML; every scalar is written as JSON, which YAML reads as is.

    >>> print(yaml({"tags": ["a: b"], "n": 1}))
    tags:
      - "a: b"
    n: 1
    """
    pad = " " * indent
    if isinstance(value, Mapping) and value:
        return "\n".join(f"{pad}{_key(key)}:{_nested(item, indent)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "\n".join(f"{pad}- {yaml(item, indent + 2).lstrip()}" for item in value)
    return pad + _scalar(value)


def _nested(item: object, indent: int) -> str:
    block = isinstance(item, (Mapping, list)) and bool(item)
    return f"\n{yaml(item, indent + 2)}" if block else f" {_scalar(item)}"


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[a-z][a-z_-]*", text) and text not in ("null", "true", "false") else _scalar(text)


def _scalar(value: Any) -> str:
    return json.dumps(clean(value) if isinstance(value, str) else value, ensure_ascii=False, allow_nan=False)
