"""`edgeward version`."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from edgeward.cli.reply import Reply


def version(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> Reply:
    """Print the version."""
    number = installed("edgeward")
    return Reply({"edgeward": number}, [f"edgeward {number}"])
