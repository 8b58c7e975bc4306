"""`edgeward secure`: networks on records that stay secret, with two parties and a dealer, or three parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.secure_cost import secure_cost
from edgeward.cli.secure_parties import Parties, secure_assistant, secure_client, secure_dealer, secure_server

secure = typer.Typer(
    help="Secure inference: certificates, costs, and the parties.", no_args_is_help=False, rich_markup_mode=None
)


@secure.command("keys")
def secure_keys(
    folder: Annotated[Path, typer.Argument(help="A new folder; one folder per party is written in it.")],
    parties: Parties = 2,
    days: Annotated[int, typer.Option(help="How long the certificates are valid.", min=1, max=3650)] = 90,
    as_json: AsJson = False,
) -> Reply:
    """Make certificates for dealer (three: assistant), server and client; give each its folder, delete the others."""
    from edgeward.backends.mpc.transport.keys import write_keys

    written = write_keys(folder, ("server", "client", "dealer" if parties == 2 else "assistant"), days=days)
    places = {name: str(folder / name) for name in sorted(written)}
    blocks = [
        *(f"{name}: {place}" for name, place in places.items()),
        f"valid for {days} days; whoever holds a folder is that party: bring each to its machine and delete the rest",
    ]
    return Reply({"folders": places, "days": days}, blocks)


secure.command("cost")(secure_cost)
secure.command("dealer")(secure_dealer)
secure.command("assistant")(secure_assistant)
secure.command("server")(secure_server)
secure.command("client")(secure_client)
