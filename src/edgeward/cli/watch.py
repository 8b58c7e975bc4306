"""Watchers of the command line: live bars on a terminal, plain lines elsewhere, an event log in the run's folder."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgeward.cli.reply import finite, plain, tell
from edgeward.core.progress import Silent, Watcher

_LINES_PER_TASK = 10
COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.fields[note]}", markup=False),
)


@final
class Lines(Watcher):
    """Writes plain lines to stderr, at most ten for each task."""

    def __init__(self) -> None:
        """Start with no task seen."""
        self._shown: dict[str, int] = {}

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Write a line when another tenth of the task is done."""
        tenth = _LINES_PER_TASK * done // max(total, 1)
        if tenth > self._shown.get(task, -1) or (done == total and total <= _LINES_PER_TASK):
            self._shown[task] = tenth
            tell(f"{task}: {done}/{total}" + (f" {note}" if note else ""))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write nothing: events are for the log."""


@final
class Bars(Watcher):
    """Draws one live bar for each task."""

    def __init__(self, progress: Progress) -> None:
        """Draw on `progress`, which the caller starts and stops."""
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the task's bar."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(plain(task).plain, total=total, note="")
        self._progress.update(self._tasks[task], completed=done, total=total, note=plain(note).plain)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Draw nothing."""


@final
class EventLog(Watcher):
    """Appends one JSON line for each event to `events.jsonl`; a full disk does not end the run."""

    def __init__(self, path: Path) -> None:
        """Append to `path`."""
        self._path = path

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Log only a task's end."""
        if done == total:
            self.event("finished", {"task": task, "steps": total})

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Append the event with its time (UTC)."""
        line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": name, **fields}
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(finite(line), sort_keys=True) + "\n")


@final
class Several(Watcher):
    """Passes everything on to several watchers."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        """Pass on to `watchers`, in order."""
        self._watchers = tuple(watchers)

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Pass the step on."""
        for watcher in self._watchers:
            watcher.step(task, done, total, note)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Pass the event on."""
        for watcher in self._watchers:
            watcher.event(name, fields)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Watcher]:
    """Give a watcher for work without a folder of its own: bars only where a person looks, otherwise lines."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        with Progress(*COLUMNS, console=Console(stderr=True)) as bars:
            yield Bars(bars)
    else:
        yield Lines()


@contextlib.contextmanager
def watching(folder: Path, *, quiet: bool) -> Iterator[Watcher]:
    """Give a watcher for one run that writes to `folder`: bars only where a person looks, otherwise lines.

    The folder is the run's to make, so that a job that cannot start leaves none behind; until then nothing is logged.
    """
    log = EventLog(folder / "events.jsonl")
    if quiet:
        yield Several([Silent(), log])
    elif sys.stderr.isatty():
        with Progress(*COLUMNS, console=Console(stderr=True)) as progress:
            yield Several([Bars(progress), log])
    else:
        yield Several([Lines(), log])
