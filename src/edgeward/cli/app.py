"""The application: which verbs there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from edgeward.cli.audit import audit
from edgeward.cli.cost import cost
from edgeward.cli.demo import demo
from edgeward.cli.devices import devices
from edgeward.cli.doctor import doctor
from edgeward.cli.mirror import mirror
from edgeward.cli.protect import protect
from edgeward.cli.recipes import recipes
from edgeward.cli.reply import Reply
from edgeward.cli.report import report
from edgeward.cli.run import run
from edgeward.cli.secure import secure
from edgeward.cli.verify import verify
from edgeward.cli.version import version

application = typer.Typer(
    name="edgeward",
    help="Take a PyTorch network to a place you do not trust, and see what it costs and leaks before it ships.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@application.callback()
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    with_traceback: Annotated[bool, typer.Option("--traceback", help="Print the traceback of an error.")] = False,
) -> None:
    """Document the flags that `entry.main` reads before any verb runs."""


VERBS: Mapping[str, Callable[..., Reply]] = {
    "protect": protect,
    "audit": audit,
    "demo": demo,
    "mirror": mirror,
    "run": run,
    "cost": cost,
    "verify": verify,
    "report": report,
    "doctor": doctor,
    "version": version,
}

for _name, _verb in VERBS.items():
    application.command(_name)(_verb)
application.add_typer(devices, name="devices")
application.add_typer(recipes, name="recipes")
application.add_typer(secure, name="secure")
