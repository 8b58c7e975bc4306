"""The flags that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgeward.core.errors import ConfigError

AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Demo = Annotated[bool, typer.Option("--demo", help="Run the built-in job on handwritten digits.")]
JobFile = Annotated[Optional[Path], typer.Argument(help="The job file (TOML).", show_default=False)]  # noqa: UP045
Workdir = Annotated[Optional[Path], typer.Option(help="Write here instead.", show_default=False)]  # noqa: UP045
Device = Annotated[Optional[str], typer.Option(help="Device profile instead of the job's.", show_default=False)]  # noqa: UP045
SeedFlag = Annotated[Optional[int], typer.Option("--seed", help="Seed instead of the job's.", show_default=False)]  # noqa: UP045
DumpConfig = Annotated[bool, typer.Option("--dump-config", help="Print the resolved job file and leave.")]


def parse_shape(text: str) -> tuple[int, ...]:
    """Read '3x32x32', '3,32,32' or '64'.

    >>> parse_shape("3x32x32"), parse_shape("64")
    ((3, 32, 32), (64,))
    """
    parts = text.lower().replace(",", "x").split("x")
    if all(part.strip().isdecimal() and 0 < int(part) <= 1 << 20 for part in parts) and len(parts) <= 6:
        return tuple(int(part) for part in parts)
    raise ConfigError(
        "the input shape cannot be read",
        expected="positive whole numbers joined by x, without the batch axis",
        came=repr(text[:60]),
        fix="write for instance --input 3x32x32",
    )
