"""`edgeward verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.storage import attester as public_key
from edgeward.cli.storage import existing_storage, token_of
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
    evidence: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A token of a device that runs this split, to check as well.", show_default=False),
    ] = None,
    nonce: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What was drawn for this token: 16 to 128 hexadecimal digits.", show_default=False),
    ] = None,
    tier: Annotated[str, typer.Option(help="The tier that the evidence must name: wasm | process.")] = "wasm",
    attester: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The device's public key (PEM); default: of --storage, or of `device` beside the bundle.",
            show_default=False,
        ),
    ] = None,
    accept_emulated: Annotated[
        bool, typer.Option("--accept-emulated", help="Accept evidence that the device's owner could have made.")
    ] = False,
    as_json: AsJson = False,
) -> Reply:
    """Check every byte of BUNDLE against its manifest and replay its test vectors; exit 3 when anything differs.

    Of a split bundle the sealed weights are judged by the secure world that loads them, or here with --storage. With
    --evidence the token must be of this very bundle, on --tier, for this --nonce, and not from an emulated world.
    """
    from edgeward.deploy.split import is_split, verify_split
    from edgeward.deploy.verify import need_bundle
    from edgeward.deploy.verify import verify as check

    document: dict[str, Any]
    need_bundle(bundle)
    if is_split(bundle):
        document = verify_split(bundle, expect, existing_storage(storage) if storage else None).to_json()
        if evidence:
            key = public_key(attester, bundle, storage)
            document["evidence"] = _attested(bundle, evidence, nonce, tier, key, accept_emulated)
    elif storage or evidence:
        raise ConfigError(
            "this bundle has no sealed weights",
            expected="a split bundle with --storage or --evidence",
            came=str(bundle),
            fix="leave both out, or name the bundle of a split",
        )
    else:
        document = check(bundle, expect=expect).to_json()
    return Reply({"verified": True, **document}, [f"{name}: {_text(value)}" for name, value in document.items()])


def _attested(
    bundle: Path, evidence: Path, nonce: str | None, tier: str, attester: bytes, accept_emulated: bool
) -> dict[str, str]:
    from edgeward.deploy.split import read_split
    from edgeward.deploy.split_evidence import check_evidence, read_nonce

    question, token = read_nonce(nonce), token_of(evidence)
    return dict(check_evidence(read_split(bundle), tier, token, attester, question, accept_emulated=accept_emulated))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, text in value.items())
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
