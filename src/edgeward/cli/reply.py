"""`Reply`: what a verb answers, as one JSON document and as blocks a person reads."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_WIDE = 200
"""Columns where nobody looks at a terminal."""


@final
@dataclass(frozen=True)
class Reply:
    """The answer of one verb: `document` for `--json`, `blocks` for people, and the exit code.

    `traces` are the tracebacks of what failed on the way, for `--traceback`.
    """

    document: Mapping[str, Any]
    blocks: Sequence[RenderableType] = ()
    exit_code: int = 0
    traces: Sequence[str] = ()


def plain(text: object) -> Text:
    """Return untrusted text for the terminal: no markup, and control characters shown as dots.

    >>> plain("[red]a\\x1b[2Jb").plain
    '[red]a·[2Jb'
    """
    return Text("".join(c if c == "\n" or c.isprintable() else "·" for c in str(text)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """Return a table; columns whose name starts with '>' are right-aligned."""
    heading = None if title is None else plain(title)
    grid = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
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


def show(reply: Reply, *, as_json: bool, stream: Any) -> None:
    """Write the reply to an open text stream: exactly one JSON document, or the blocks for people."""
    if as_json:
        stream.write(json.dumps(finite(reply.document), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return
    terminal = stream.isatty()
    # Rendered first and written once: rich would end the process on a closed pipe.
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=None if terminal else _WIDE, highlight=False)
    for block in reply.blocks:
        if isinstance(block, str):
            console.print(plain(block), soft_wrap=True)
        else:
            console.print(block)
    stream.write(buffer.getvalue())


def tell(text: str) -> None:
    """Write one line to stderr, where progress and errors go."""
    sys.stderr.write(plain(text).plain + "\n")
