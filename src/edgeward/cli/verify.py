"""`edgeward verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.", show_default=False)],
    expect: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="SHA-256 of the manifest, learnt another way.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Check every byte of BUNDLE against its manifest and replay its test vectors; exit 3 when anything differs."""
    from edgeward.deploy.verify import verify as check

    result = check(bundle, expect=expect)
    document = result.to_json()
    return Reply({"verified": True, **document}, [f"{name}: {value}" for name, value in document.items()])
