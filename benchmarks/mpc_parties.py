"""Ours, timed as a peer is: two processes with one thread each over the real channel on loopback, a dealer in a third.

A run has three parts, one after the other, so that nothing hides behind anything: the dealer deals and delivers, both
parties prepare, both parties run. A part takes as long as its slower party.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

import numpy as np

from benchmarks.mpc_play import Play
from benchmarks.mpc_task import Task
from edgeward.backends.mpc.offline.delivery import accept, deliver, introduce, introduced
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting, connect
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.randomness import SecretBytes

_DEALER = 2
_NAMES = ("client", "server", "dealer")
_SESSION = hashlib.sha256(b"benchmark").digest()
_HOST = "127.0.0.1"
_TIMEOUT = 300.0


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """Seconds of every run's parts, payload bytes by label and rounds of the last run, and its answer."""

    rows: tuple[dict[str, float], ...]
    sent: dict[str, int]
    rounds: int
    answer: np.ndarray = field(repr=False)

    def best(self, *parts: str) -> float:
        """Return the least sum of these parts over the runs."""
        return min(sum(row[part] for part in parts) for row in self.rows)

    def median(self, *parts: str) -> float:
        """Return the median sum of these parts over the runs."""
        return statistics.median(sum(row[part] for part in parts) for row in self.rows)


def measured(play: Play, task: Task, *, tls: bool = False) -> dict[str, Any]:
    """Return seconds (online, preparing, dealing), bytes that each party sends, rounds and the largest error."""
    return figures(run_play(play, task.repeats, tls=tls), task, tls=tls)


def figures(found: Outcome, task: Task, *, tls: bool = False) -> dict[str, Any]:
    """Return the row of a benchmark for what `run_play` found."""
    return {
        "transport": "TCP on loopback, " + ("TLS 1.3" if tls else "no TLS"),
        "seconds": found.best("online"),
        "seconds_median": found.median("online"),
        "seconds_all": [row["online"] for row in found.rows],
        "seconds_busy": found.best("busy"),
        "seconds_with_preprocessing": found.best("online", "prepare", "deal"),
        "seconds_with_preprocessing_median": found.median("online", "prepare", "deal"),
        "seconds_dealing": found.best("deal"),
        "seconds_preparing": found.best("prepare"),
        "bytes": sum(found.sent.values()),
        "rounds": found.rounds,
        "max_error": task.error(found.answer),
        "exact": bool(np.array_equal(found.answer.reshape(task.right.shape), task.right)),
    }


def run_play(
    play: Play,
    repeats: int,
    *,
    tls: bool = False,
    network: Network | None = None,
    seeds: tuple[SecretBytes, SecretBytes] | None = None,
) -> Outcome:
    """Run `play` `repeats` times; with the same `seeds` two plays of one deal get the same material."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, _one_thread():
        folder = Path(name) / "keys" if tls else None
        keys = write_keys(folder, _NAMES) if folder else {}
        pipes = [context.Pipe() for _ in (0, 1)]
        port = _free_port()
        listeners = [Listener(_HOST, 0, _meeting(_DEALER, number, keys)) for number in (0, 1)]
        parties = [
            context.Process(
                target=_party,
                args=(number, play, repeats, port, listeners[number].port, keys, network, pipes[number][1]),
                daemon=True,
            )
            for number in (0, 1)
        ]
        for process in parties:
            process.start()
        for pipe in pipes:
            # So that a party that dies ends the benchmark.
            pipe[1].close()
        try:
            dealer = Dealer(play.ring, seeds=seeds)
            rows = tuple(_deal(play, dealer, repeats, listeners, [pipe[0] for pipe in pipes]))
            ends = [pipe[0].recv() for pipe in pipes]
        finally:
            for process in parties:
                process.join(5.0)
                process.kill()
            for listener in listeners:
                listener.close()
    if ends[0]["sent"] != ends[1]["sent"] or ends[0]["rounds"] != ends[1]["rounds"]:
        raise RuntimeError("the parties counted differently")
    return Outcome(rows, ends[0]["sent"], ends[0]["rounds"], ends[0]["answer"])


def _deal(
    play: Play, dealer: Dealer, repeats: int, listeners: list[Listener], pipes: list[Connection]
) -> Iterator[dict[str, float]]:
    """Play the dealer; yield the seconds of every run's parts."""
    with listeners[0].accept(patience=_TIMEOUT) as first, listeners[1].accept(patience=_TIMEOUT) as second:
        for number, channel in enumerate((first, second)):
            introduce(channel, dealer, number)
        deliver(second, dealer, play.setup(), first)
        for pipe in pipes:
            pipe.recv()
        for _ in range(repeats):
            for pipe in pipes:
                pipe.send("accept")
            start = time.perf_counter()
            deliver(second, dealer, play.demands(), first)
            for pipe in pipes:
                pipe.recv()
            dealt = time.perf_counter() - start
            for pipe in pipes:
                pipe.send("go on")
            told = [pipe.recv() for pipe in pipes]
            yield {"deal": dealt, **{part: max(row[part] for row in told) for part in told[0]}}


def _party(
    number: int,
    play: Play,
    repeats: int,
    port: int,
    dealer_port: int,
    keys: dict[str, Credentials],
    network: Network | None,
    pipe: Connection,
) -> None:
    """Play one party in a process of its own."""
    import torch

    torch.set_num_threads(1)
    meeting = _meeting(number, 1 - number, keys, network)
    dealer = connect(_HOST, dealer_port, _meeting(number, _DEALER, keys))
    with dealer, _other(meeting, port) as channel:
        party, supply = Party(number, play.ring, channel, play.slices), introduced(dealer, play.ring, number)
        accept(dealer, supply, play.setup())
        state = play.begin(party, supply)
        pipe.send("begun")
        for _ in range(repeats):
            pipe.recv()
            accept(dealer, supply, play.demands())
            pipe.send("accepted")
            pipe.recv()
            start = time.perf_counter()
            ready = play.prepare(state, supply)
            prepared = time.perf_counter() - start
            channel.exchange(np.zeros(1, np.uint8), "ready")
            before, busy, start = channel.meter.reading(), time.process_time(), time.perf_counter()
            result = play.run(state, ready)
            online, busy = time.perf_counter() - start, time.process_time() - busy
            counted = channel.meter.reading() - before
            pipe.send({"prepare": prepared, "online": online, "busy": busy})
        answer = play.answer(state, result)
        sent = {label: traffic.sent for label, traffic in counted.traffic.items()}
        pipe.send({"answer": answer, "sent": sent, "rounds": counted.rounds})


def _other(meeting: Meeting, port: int) -> Channel:
    if meeting.party:
        return connect(_HOST, port, meeting, patience=_TIMEOUT)
    with Listener(_HOST, port, meeting) as listener:
        return listener.accept(patience=_TIMEOUT)


def _meeting(me: int, other: int, keys: dict[str, Credentials], network: Network | None = None) -> Meeting:
    return Meeting(
        me,
        other,
        _NAMES[other],
        _SESSION,
        keys.get(_NAMES[me]),
        timeout=_TIMEOUT,
        greeting_timeout=_TIMEOUT,
        network=network,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes started inside use one thread each."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
