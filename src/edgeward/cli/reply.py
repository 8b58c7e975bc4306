"""`Reply`: what a verb answers, as one JSON document and as blocks a person reads."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


@final
@dataclass(frozen=True)
class Reply:
    """The answer of one verb: `document` for `--json`, `blocks` for people, and the exit code."""

    document: Mapping[str, Any]
    blocks: Sequence[RenderableType] = ()
    exit_code: int = 0


def plain(text: object) -> Text:
    """Return untrusted text for the terminal: no markup, and control characters shown as dots.

    >>> plain("[red]a\\x1b[2Jb").plain
    '[red]a·[2Jb'
    """
    return Text("".join(c if c == "\n" or c.isprintable() else "·" for c in str(text)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """Return a table; columns whose name starts with '>' are right-aligned."""
    grid = Table(title=None if title is None else plain(title), title_justify="left", show_edge=False, pad_edge=False)
    for name in columns:
        grid.add_column(plain(name.lstrip(">")), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*[plain(cell) for cell in row])
    return grid


def finite(value: Any) -> Any:
    """Return JSON data with NaN and infinities as null, tuples as lists and unknown objects as text."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def show(reply: Reply, *, as_json: bool, stream: TextIO) -> None:
    """Write the reply: exactly one JSON document, or the blocks for people."""
    if as_json:
        stream.write(json.dumps(finite(reply.document), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return
    wide = None if stream.isatty() else 120
    console = Console(file=stream, width=wide, highlight=False)
    for block in reply.blocks:
        console.print(plain(block) if isinstance(block, str) else block, markup=False)


def tell(text: str) -> None:
    """Write one line to stderr, where progress and errors go."""
    sys.stderr.write(plain(text).plain + "\n")
