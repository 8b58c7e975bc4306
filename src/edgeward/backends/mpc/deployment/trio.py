"""`Trio`: one of three parties of a running deployment, who hold shares and need no dealer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.deployment.agreement import (
    ASSISTANT,
    CLIENT,
    SERVER,
    TRIO_ROLES,
    Address,
    Terms,
    check_digest,
    receive_plan,
    send_plan,
    welcomed,
)
from edgeward.backends.mpc.deployment.joining import Expense
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.session import Model
from edgeward.backends.mpc.replicated.execution import check_plan
from edgeward.backends.mpc.replicated.member import Member
from edgeward.backends.mpc.replicated.neighbours import ChannelNeighbours
from edgeward.backends.mpc.replicated.simulation import answer_batch, cost_tables, hold, metered_table
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.meter import Meter, Reading
from edgeward.backends.mpc.transport.rendezvous import connect
from edgeward.core.errors import ConfigError

RUN_BYTES = 16
_DIGEST_BYTES = 32
_STOP, _GO = 0, 1
_WATCH_SECONDS = 0.25

Channels = Mapping[int, Channel]
"""A party's channels by the numbers of the two others; both count into one meter."""


@final
@dataclass(frozen=True)
class Assistance:
    """Where the third party is, who holds neither records nor model."""

    assistant: Address


@final
class Trio:
    """One party of three: weights shared, ready for batches.

    Guarantee: as `Member`: one semi-honest, static party of three learns nothing but what is public, and the client the
    answers; any two that work together know everything. The keys for shares of zero are drawn by each party from the
    operating system and given to one neighbour over its channel. Nothing secret is sent before all three have said that
    they run the same plan in the same run.
    """

    def __init__(
        self, plan: Plan, number: int, channels: Channels, run: bytes, terms: Terms, model: Model | None = None
    ) -> None:
        """Agree on plan and run, draw keys, share the weights; `model` at the server. Raises: `ChannelError`."""
        check_plan(plan)
        self._plan, self._number, self._channels, self._terms = plan, number, channels, terms
        agree_run(channels, plan, run)
        link = ChannelNeighbours(channels[(number - 1) % 3], channels[(number + 1) % 3])
        self._meter, self._readings, self._online = link.meter, list[Reading](), 0.0
        self._meter.begin_rounds()
        before = self._meter.reading()
        self._member = Member(number, plan.ring, link)
        self._held = hold(self._member, plan, model)
        self._setup = self._meter.reading() - before

    def batch(self, records: np.ndarray | None) -> np.ndarray | None:
        """Run one batch (the client's side), while the others are in `follow`. Raises: `ChannelError`."""
        self._say(_GO)
        return self._run(records)

    def follow(self, answered: Callable[[int], None]) -> Expense:
        """Run batches as long as the client wants some (the others' side), counting them; return what it took."""
        client, other = self._channels[CLIENT], self._channels[SERVER if self._number == ASSISTANT else ASSISTANT]
        while hear_command(client, other, len(self._readings), self._terms.timeout) == _GO:
            self._run(None)
            answered(len(self._readings))
        return self.close()

    def leave(self) -> None:
        """Tell the others that no batch follows (the client's side)."""
        self._say(_STOP)

    def fetch(self, count: int) -> None:
        """Refuse: three parties prepare nothing."""
        raise ConfigError("nothing to fetch", expected="two parties and a dealer", came="three parties", fix="run it")

    def close(self) -> Expense:
        """Return what was counted."""
        declared = cost_tables(self._plan)[self._number]
        tables = [metered_table(self._plan, self._setup, reading) for reading in self._readings]
        return Expense(
            TRIO_ROLES[self._number],
            self._plan.digest,
            len(tables),
            Cost(self._setup.sent, self._setup.rounds),
            sum((table.online for table in tables), Cost()),
            0,
            self._online,
            0.0,
            all(table.rows == declared.rows for table in tables),
            tables[0] if tables else declared,
            parties=3,
        )

    def _say(self, command: int) -> None:
        word = np.array([command, len(self._readings)], np.uint64)
        for peer in (SERVER, ASSISTANT):
            self._channels[peer].send(word, "next")

    def _run(self, records: np.ndarray | None) -> np.ndarray | None:
        start = time.monotonic()
        self._meter.begin_rounds()
        before = self._meter.reading()
        answer = answer_batch(self._member, self._plan, self._held, records)
        self._readings.append(self._meter.reading() - before)
        self._online += time.monotonic() - start
        return answer


def reach_assistant(
    place: Assistance, number: int, line: Lifeline, terms: Terms, patience: float, meter: Meter
) -> Channel:
    """Return a channel to the assistant. Raises: `ChannelError`."""
    meeting, at = terms.meeting(number, ASSISTANT, meter=meter), place.assistant
    terms.note(f"looking for the assistant at {at}")
    try:
        return line.add(connect(at.host, at.port, meeting, patience=patience))
    except ChannelError as error:
        fix = "start the assistant first" if error.reason is Failure.UNREACHABLE else ""
        raise ChannelError(
            error.reason, expected=f"the assistant: {error.expected}", came=error.came, fix=fix
        ) from None


def arrive(server: Channel, assistant: Channel, timeout: float) -> None:
    """Tell the server that the assistant has welcomed this client too (the client's side). Raises: `ChannelError`."""
    end = time.monotonic() + timeout
    while not assistant.stirs(_WATCH_SECONDS) and time.monotonic() < end:
        server.check_quiet()
    welcomed(assistant)
    server.send(np.zeros(1, np.uint8), "here")


def await_client(client: Channel) -> None:
    """Return when the assistant has welcomed the client too (the server's side). Raises: `ChannelError`.

    Until then nothing is said to the assistant, who may be waiting for a party and takes a word for a failure.
    """
    client.receive((1,), np.uint8, "here")


def invite(channels: Channels, plan: Plan, run: bytes) -> None:
    """Tell the others which plan this run is about (the server's side). Raises: `ChannelError`."""
    for channel in channels.values():
        channel.send(np.frombuffer(run, np.uint8), "run")
        send_plan(channel, plan)


def invited(server: Channel, expected: str) -> tuple[Plan, bytes]:
    """Return plan and run that the server names. Raises: `ChannelError`, also for another digest than the expected."""
    run = server.receive((RUN_BYTES,), np.uint8, "run").tobytes()
    plan = receive_plan(server)
    check_digest(plan, expected)
    return plan, run


def agree_run(channels: Channels, plan: Plan, run: bytes) -> None:
    """Return when all three have said that they hold this plan in this run, and that the two others do.

    Raises: `ChannelError` (the other party runs something else, and the channels' own).
    """
    own = hashlib.sha256(bytes.fromhex(plan.digest) + run).digest()
    for label in ("agreed", "all-agreed"):
        for channel in channels.values():
            channel.send(np.frombuffer(own, np.uint8), label)
        for number, channel in channels.items():
            theirs = channel.receive((_DIGEST_BYTES,), np.uint8, label).tobytes()
            if theirs != own:
                came = f"another at the {TRIO_ROLES[number]}"
                raise ChannelError(Failure.DISAGREEMENT, expected="one plan in one run at all three", came=came)


def hear_command(client: Channel, other: Channel, count: int, timeout: float) -> int:
    """Return what the client asks for after `count` batches, once the other party has heard the same.

    Until the client says something, the other party has nothing to say: then that it is gone is noticed at once. Later
    it may be the first to speak, and says what it heard. Raises: `ChannelError`.
    """
    end, heard = time.monotonic() + timeout, None
    while not client.stirs(_WATCH_SECONDS):
        if heard is None and other.stirs():
            heard = _word(other, "heard", count)
        if time.monotonic() > end:
            raise ChannelError(Failure.TIMED_OUT, expected=f"a word of the client within {timeout:g} s", came="none")
    command = _word(client, "next", count)
    other.send(np.array([command, count], np.uint64), "heard")
    heard = _word(other, "heard", count) if heard is None else heard
    if heard != command:
        raise ChannelError(Failure.DISAGREEMENT, expected="one word of the client to both", came="two")
    return command


def _word(channel: Channel, label: str, count: int) -> int:
    command, theirs = (int(one) for one in channel.receive((2,), np.uint64, label))
    if command not in (_STOP, _GO) or theirs != count:
        came = f"command {command} after {theirs} batches"
        raise ChannelError(Failure.DISAGREEMENT, expected=f"go on or stop, after {count} batches", came=came)
    return command
