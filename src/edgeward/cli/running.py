"""From a job to a reply: what `protect`, `audit` and `demo` have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeward.cli.reply import Reply, tell
from edgeward.cli.summary import candidate_table
from edgeward.cli.threads import one_thread
from edgeward.cli.watch import watching
from edgeward.core.errors import ConfigError, EdgewardError, NoFeasibleCandidate

if TYPE_CHECKING:
    from edgeward.job import Job
    from edgeward.protect import Protected


def the_job(path: Path | None, *, demo: bool) -> Job:
    """Return the job of the file, or the built-in one; exactly one must be asked for."""
    from edgeward.job import demo_job, load_job

    if demo == (path is not None):
        raise ConfigError(
            "there is no job to run" if path is None else "there are two jobs to run",
            expected="a job file or --demo",
            came="neither" if path is None else "both",
            fix="write a job file with `edgeward protect --demo --dump-config > job.toml`",
        )
    return demo_job() if path is None else load_job(path)


def dumped(job: Job) -> Reply:
    """Return the resolved job file."""
    return Reply({"job": job.to_json()}, [job.to_toml().rstrip("\n")])


def run_job(job: Job, *, quiet: bool, demo: bool = False) -> Reply:
    """Run `protect` and reply with the candidates, the choice and where everything lies."""
    protected = measured(job, quiet=quiet, audit_only=False, demo=demo)
    folder = job.output
    blocks: list[Any] = [candidate_table(protected.report), ""]
    document: dict[str, Any] = {**protected.report, "workdir": str(folder)}
    code, traces = crashes(protected)
    try:
        choice = protected.choose()
    except NoFeasibleCandidate as error:
        tell(f"error: {error}")
        code = code or error.exit_code
        fields = {"type": type(error).__name__, "message": str(error), "exit_code": code}
        return Reply({**document, "error": fields}, [*blocks, *places(folder)], code, traces)
    document["choice"] = choice.candidate.to_json()
    return Reply(document, [*blocks, f"chosen: {choice.candidate.recipe}", *places(folder)], code, traces)


def crashes(protected: Protected) -> tuple[int, list[str]]:
    """Return the exit code and the tracebacks of the recipes that ended with an internal error; name each."""
    for failure in protected.crashed:
        tell(f"error: recipe {failure.recipe}: {failure.short}\n  fix:      run again with --traceback and report it")
    return (EdgewardError.exit_code if protected.crashed else 0), [failure.trace for failure in protected.crashed]


def measured(job: Job, *, quiet: bool, audit_only: bool, demo: bool = False) -> Protected:
    """Run the job under a watcher that fits where stderr goes; the built-in one, `demo`, with one thread."""
    threads = one_thread() if demo else contextlib.nullcontext()
    with threads, watching(job.output, quiet=quiet) as watcher:
        return job.run(watcher, audit_only=audit_only)


def places(folder: Path) -> list[str]:
    """Return one line for each file or folder a person opens next."""
    named: Mapping[str, str] = {"report": "report.html", "card": "CARD.md", "bundle": "bundle"}
    return [f"{name}: {folder / file}" for name, file in named.items() if (folder / file).exists()]
