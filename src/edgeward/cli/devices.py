"""`edgeward devices`: which device profiles there are, and what is in one."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply, table

devices = typer.Typer(help="Device profiles: list them, show one.", no_args_is_help=False, rich_markup_mode=None)


@devices.command("list")
def list_devices(as_json: AsJson = False) -> Reply:
    """List the shipped profiles."""
    from edgeward.devices import devices as names
    from edgeward.devices import load_profile

    profiles = [load_profile(name) for name in names()]
    rows = [(profile.name, profile.kind, profile.title) for profile in profiles]
    document = {"devices": [{"name": p.name, "kind": p.kind, "title": p.title} for p in profiles]}
    return Reply(document, [table(("name", "kind", "title"), rows)])


@devices.command("show")
def show_device(
    name: Annotated[str, typer.Argument(help="A profile's name, or a .toml file.")], as_json: AsJson = False
) -> Reply:
    """Show every figure of a profile with its source."""
    from edgeward.devices import load_profile

    profile = load_profile(name)
    return Reply(profile.to_json(), [table(("figure", "value"), profile.describe())])
