"""`main`: runs one verb, and turns whatever happens into an exit code and a message.

Exit codes: 0 ok, 1 what was given cannot be used, 2 no candidate meets the budget, 3 a claim or a verification failed,
4 an internal error (also one that ended a single recipe of a run, unless that exits 3), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from edgeward.cli.app import application
from edgeward.cli.reply import Reply, plain, show, tell
from edgeward.core.errors import EdgewardError

INTERRUPTED = 130
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises.

    With `--json` exactly one JSON document goes to stdout, on errors too; everything else goes to stderr.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    as_json = "--json" in given
    stream = sys.stdout
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json and "--help" not in given else contextlib.nullcontext()
    try:
        with quiet:
            answer = _run(given)
        if isinstance(answer, Reply):
            for trace in answer.traces if with_traceback else ():
                tell(trace)
            show(answer, as_json=as_json, stream=stream)
            stream.flush()
            return answer.exit_code
        # Typer turns an interrupt within a verb into the number 130.
        if answer == INTERRUPTED:
            return _interrupted(as_json, stream, given)
        return answer if isinstance(answer, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(as_json, stream, given)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        code, fields = describe(error)
        if with_traceback:
            traceback.print_exception(error, file=sys.stderr)
        if as_json:
            show(Reply({"error": {**fields, "exit_code": code}}), as_json=True, stream=stream)
        tell(f"error: {fields['message']}")
        return code


def _interrupted(as_json: bool, stream: Any, given: Sequence[str]) -> int:
    # Parties of a secure computation resume nothing, and have said what becomes of it.
    message = "interrupted" + ": what is measured is kept; run again to resume" * (given[:1] != ["secure"])
    if as_json:
        fields = {"type": "Interrupted", "message": message, "exit_code": INTERRUPTED}
        show(Reply({"error": fields}), as_json=True, stream=stream)
    tell(message)
    return INTERRUPTED


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the plain fields of an error."""
    if isinstance(error, EdgewardError):
        parts = {"what": error.what, "expected": error.expected, "came": error.came, "fix": error.fix}
        return error.exit_code, {"type": type(error).__name__, "message": str(error), **parts}
    if isinstance(error, _UsageError):
        message = str(error.format_message())  # type: ignore[attr-defined]
        fix = "`edgeward --help` lists the verbs, `edgeward VERB --help` their flags"
        return 1, {"type": "UsageError", "message": f"{message}\n  fix:      {fix}", "what": message, "fix": fix}
    short = plain(error).plain.strip().splitlines()[:1]
    message = f"internal: {type(error).__name__}: {short[0][:300] if short else 'no message'}"
    fix = "run again with --traceback and report what it prints"
    return 4, {"type": type(error).__name__, "message": f"{message}\n  fix:      {fix}", "what": message, "fix": fix}


def _run(arguments: list[str]) -> Any:
    command: Any = typer.main.get_command(application)
    return command.main(args=_expanded(arguments), prog_name="edgeward", standalone_mode=False)


def _expanded(arguments: list[str]) -> list[str]:
    """Turn `--version` into its verb, and nothing at all into `--help`."""
    bare = [argument for argument in arguments if argument != "--json"]
    if bare == ["--version"]:
        return ["version", *(argument for argument in arguments if argument == "--json")]
    return arguments if bare else ["--help"]
