"""`edgeward report`: show a finished run again, or compare two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply
from edgeward.cli.summary import candidate_table, split_table
from edgeward.core.errors import ConfigError


def report(
    runs: Annotated[list[Path], typer.Argument(help="The folder of a run, or two with --compare.")],
    compare: Annotated[bool, typer.Option("--compare", help="Compare two runs.")] = False,
    show: Annotated[
        Optional[Literal["yes", "no"]],  # noqa: UP045
        typer.Option("--open", help="Open report.html in a browser.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Print the table of a run and render its report.html and CARD.md again, or compare two runs."""
    wanted = 2 if compare else 1
    if len(runs) != wanted:
        raise ConfigError(
            "the number of runs does not fit",
            expected="two runs with --compare" if compare else "one run",
            came=str(len(runs)),
            fix="edgeward report RUN, or edgeward report --compare A B",
        )
    return _compared(runs[0], runs[1]) if compare else _shown(runs[0], show == "yes")


def _shown(run: Path, in_browser: bool) -> Reply:
    from edgeward.report.document import write_report
    from edgeward.report.read import read_report
    from edgeward.report.splits import read_split_report, write_split_report

    folder = run if run.is_dir() else run.parent
    document = read_split_report(run)
    if document is not None:
        write_split_report(folder, document)
        shown = split_table(document)
    else:
        document = read_report(run)
        write_report(folder, document)
        shown = candidate_table(document)
    page = folder / "report.html"
    if in_browser:
        import webbrowser

        webbrowser.open(page.absolute().as_uri())
    return Reply({**document, "run": str(run)}, [shown, "", f"report: {page}"])


def _compared(a: Path, b: Path) -> Reply:
    from edgeward.report.compare import compare
    from edgeward.report.read import read_report

    comparison = compare(read_report(a), read_report(b))
    return Reply(comparison.to_json(), [comparison.to_text()])
