"""`edgeward verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.storage import existing_storage
from edgeward.core.errors import ConfigError


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.", show_default=False)],
    expect: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="SHA-256 of the manifest, learnt another way.", show_default=False),
    ] = None,
    storage: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A device's secure storage, to open the sealed weights of a split.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Check every byte of BUNDLE against its manifest and replay its test vectors; exit 3 when anything differs.

    Of a split bundle the sealed weights are judged by the secure world that loads them, or here with --storage.
    """
    from edgeward.deploy.split import is_split, verify_split
    from edgeward.deploy.verify import verify as check

    document: dict[str, Any]
    if is_split(bundle):
        document = verify_split(bundle, expect, existing_storage(storage) if storage else None).to_json()
    elif storage:
        raise ConfigError(
            "this bundle has no sealed weights",
            expected="a split bundle with --storage",
            came=str(bundle),
            fix="leave --storage out, or name the bundle that `edgeward mirror` wrote",
        )
    else:
        document = check(bundle, expect=expect).to_json()
    return Reply({"verified": True, **document}, [f"{name}: {_text(value)}" for name, value in document.items()])


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
