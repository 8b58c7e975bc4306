"""A party in a process of its own, which can be told to die in the middle of a write, or before a read or a change
of what is on its disk."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeward import mpc
from edgeward.backends.mpc.deployment.store import TupleStore
from edgeward.backends.mpc.transport import rendezvous
from edgeward.backends.mpc.transport.stream import SocketStream
from patience import PATIENCE

ROLES = ("dealer", "server", "client")


@dataclass
class Case:
    """What one process shall do: its role, the arguments of `deploy`, after how many calls (socket, disk) it dies."""

    role: str
    arguments: dict[str, Any]
    records: np.ndarray | None = None
    dies_at: int | None = None
    taken: Path | None = None
    batches: int | None = None
    version: int | None = None
    dies_storing: Path | None = None
    """The folder of the other party's store: die before the first batch is stored, once that one holds two."""


@dataclass
class Ended:
    """How a process ended: its answer or error, calls made, and when (the clock all processes share)."""

    code: int | None
    at: float
    answer: Any = None
    error: str = ""
    reason: str = ""
    calls: int = 0
    notes: list[str] = field(default_factory=list)


def play(case: Case, pipe: Any) -> None:
    """Run one role and report through `pipe`."""
    calls = _count_calls(case.dies_at)
    if case.taken is not None:
        _log_taken(case.taken, case.role)
    if case.version is not None:
        rendezvous.VERSION = case.version
    if case.dies_storing is not None:
        _die_storing(case.arguments["store"], case.dies_storing)
    notes: list[str] = []
    answer, error, reason = None, "", ""
    try:
        role = mpc.deploy(case.role, note=notes.append, **case.arguments)
        if case.role == "client":
            with role:
                answer = role.fetch(2) if case.records is None else role.run(case.records)
            agrees = role.expense.agrees
        elif case.role in ("server", "assistant"):
            agrees = role.run().agrees
        else:
            role.run(batches=case.batches)
            agrees = True
        if not agrees:
            error = "metered and declared differ"
    except Exception as failure:
        answer, error, reason = None, f"{type(failure).__name__}: {failure}", str(getattr(failure, "reason", ""))
    pipe.send((answer, error, reason, calls[0], notes))
    pipe.close()


def run_all(cases, limit=2 * PATIENCE):
    """Run the cases at once; return how each ended. A process that hangs is killed after `limit` seconds: code None."""
    context = _context()
    started, pipes = [], []
    for case in cases:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=play, args=(case, there))
        process.start()
        there.close()
        started.append(process)
        pipes.append(here)
    ended: list[Any] = [None] * len(cases)
    end = time.monotonic() + limit

    def wait(i):
        report = ()
        try:
            if pipes[i].poll(max(0.0, end - time.monotonic())):
                report = pipes[i].recv()
        except EOFError:
            pass
        started[i].join(max(0.0, end - time.monotonic()))
        at, code = time.monotonic(), started[i].exitcode
        if code is None:
            started[i].kill()
            started[i].join()
        ended[i] = Ended(code, at, *report)

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process, pipe in zip(started, pipes, strict=True):
        process.close()
        pipe.close()
    return ended


def _context():
    context = multiprocessing.get_context("forkserver")
    # Installed modules only: the server that forks does not see the folder of the tests.
    room = "edgeward.backends.mpc.deployment."
    context.set_forkserver_preload(
        ["edgeward.mpc", room + "asking", room + "assisting", room + "dealing", room + "serving", room + "store"]
    )
    return context


def _count_calls(dies_at):
    """Count the socket and disk calls of this process; at call `dies_at` send half of the bytes, if any, and die."""
    calls, lock = [0], threading.Lock()
    offer, take = SocketStream.offer, SocketStream.take

    def step():
        with lock:
            calls[0] += 1
            return calls[0] == dies_at

    def dying_offer(self, head, body, **named):
        if step():
            whole = head + bytes(body)
            offer(self, whole[: len(whole) // 2], memoryview(b""))
            os.kill(os.getpid(), signal.SIGKILL)
        return offer(self, head, body, **named)

    def dying_take(self, view):
        count = take(self, view)
        # How often there is nothing yet differs from run to run.
        if count is not None and step():
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def dying(change):
        def changed(*arguments, **named):
            if step():
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **named)

        return changed

    SocketStream.offer, SocketStream.take = dying_offer, dying_take
    # What is on the disk changes, or is made to last, by these alone.
    os.fsync, os.rename, Path.rename, Path.unlink = map(dying, (os.fsync, os.rename, Path.rename, Path.unlink))
    return calls


def _log_taken(path, role):
    """Write a line for every batch that is drawn from a store, before anything else happens with it."""
    take = TupleStore.take

    def logged(self, index):
        records = take(self, index)
        with path.open("a") as log:
            log.write(f"{role} {self._deal.hex()} {index}\n")
        return records

    TupleStore.take = logged


def _die_storing(own, other):
    """Die as late as the first batch is to be stored, with the other store as far as it can come."""

    def dying_put(self, index, records):
        while len([*other.glob("*/batch-*")]) < 2 or not all([*one.glob("*/held.sealed")] for one in (own, other)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    TupleStore.put = dying_put
