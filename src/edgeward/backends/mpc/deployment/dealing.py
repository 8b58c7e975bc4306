"""`deal`: the dealer of a deployment, which serves one server and one client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from edgeward.backends.mpc.deployment.agreement import (
    CLIENT,
    DEALER,
    ROLES,
    SERVER,
    TRUST,
    Address,
    Terms,
    receive_plan,
)
from edgeward.backends.mpc.deployment.journal import Journal, MemoryJournal
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.deployment.reception import Reception
from edgeward.backends.mpc.deployment.stock import DEAL_BYTES, NO_DEAL
from edgeward.backends.mpc.deployment.streamed import BATCH, END, SEED, WANT
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.rendezvous import Listener

_DIGEST_BYTES = 32
_LAST_WORD_SECONDS = 1.0


@final
@dataclass(frozen=True)
class Dealt:
    """What a dealer did: batches and bytes sent to each party, seeds and corrections."""

    batches: int
    to_client: int
    to_server: int
    resumed: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**vars(self), "kind": "deployment", "role": "dealer", **TRUST}


def deal(
    listen: Address,
    terms: Terms,
    *,
    journal: Journal | None = None,
    batches: int | None = None,
    listening: Callable[[int], None] = lambda port: None,
    dealt: Callable[[int], None] = lambda count: None,
) -> Dealt:
    """Wait for server and client, deal what they ask for until one of them is done, and return the counts.

    Args: `journal`: where a dealer remembers over restarts (default: it does not); `batches`: deal no more than that;
    `listening` is told the port, `dealt` the number of batches so far.
    Guarantee: whoever runs this knows all masks: it must see no message between the parties and work with neither. It
    learns the plan (architecture and shapes) and the number of batches. No index of a deal is dealt twice.
    Raises: `ChannelError`, `StoreError`, `DataError`.
    """
    meetings = [terms.meeting(DEALER, peer, idle=True) for peer in (SERVER, CLIENT)]
    with Lifeline() as line:
        guests: dict[int, _Guest] = {}
        with Listener(listen.host, listen.port, *meetings) as listener, Reception(listener, terms) as reception:
            listening(listener.port)
            while len(guests) < len(meetings):
                guest = _Guest(line.add(reception.next(line.check, guests)), line)
                guests[guest.number] = guest
                terms.note(f"the {ROLES[guest.number]} is here")
        server, client = guests[SERVER], guests[CLIENT]
        plan = server.greeted(line)
        client.greeted(line)
        if client.digest != server.digest or plan is None or plan.digest != server.digest.hex():
            raise ChannelError(Failure.DISAGREEMENT, expected="one plan at both parties", came="two plans")
        source = journal or MemoryJournal()
        same = server.deal if server.deal == client.deal else NO_DEAL
        dealer = source.resume(plan, same) if same != NO_DEAL else None
        resumed = dealer is not None
        if dealer is None:
            same, dealer = source.begin(plan)
        for guest in (client, server):
            guest.begin(same, None if resumed else dealer)
        count = _stream(plan, dealer, lambda: source.next_index(same), (client, server), line, batches, dealt)
        for guest in (client, server):
            guest.leave()
        return Dealt(count, client.sent, server.sent, resumed)


def _stream(
    plan: Plan,
    dealer: Dealer,
    next_index: Callable[[], int],
    guests: Sequence[_Guest],
    line: Lifeline,
    limit: int | None,
    dealt: Callable[[int], None],
) -> int:
    """Deal batches as long as both guests want some; return how many."""
    count = 0
    while limit is None or count < limit:
        if not all(guest.wants(count + 1, line) for guest in guests):
            break
        batch, index = dealer.batch(), next_index()
        for guest in guests:
            guest.open_batch(index, batch)
        for place, demand in enumerate(plan.demands):
            for guest, entry in zip(guests, batch.deal(demand), strict=True):
                guest.give(place, demand, entry.corrections)
        count += 1
        dealt(count)
    return count


@final
class _Guest:
    """One party at the dealer: a thread hears what it wants."""

    def __init__(self, channel: Channel, line: Lifeline) -> None:
        self._channel, self.number = channel, -1 if channel.peer is None else channel.peer
        self._line, self._changed = line, threading.Condition()
        self._wanted, self._done, self._plan_came = 0, False, False
        self.plan: Plan | None = None
        self.digest, self.deal = b"", NO_DEAL
        threading.Thread(target=self._listen, name=f"edgeward-{ROLES[self.number]}", daemon=True).start()

    @property
    def sent(self) -> int:
        """Return the payload bytes sent to this party."""
        return self._channel.meter.reading().sent

    def greeted(self, line: Lifeline) -> Plan | None:
        """Return the plan the party sent, if it is the server, once it has said which plan and deal it means."""
        self._until(lambda: self._plan_came, line)
        return self.plan

    def begin(self, deal: bytes, fresh: Dealer | None) -> None:
        """Tell the party which deal holds, and for a new one its seed."""
        self._channel.send(np.frombuffer(bytes([fresh is not None]) + deal, np.uint8), "deal")
        if fresh is not None:
            self._channel.send(np.frombuffer(fresh.seeds[self.number].reveal(), np.uint8), SEED)

    def wants(self, count: int, line: Lifeline) -> bool:
        """Wait until the party wants `count` batches in all, or is done; return whether it wants them."""
        self._until(lambda: self._done or self._wanted >= count, line)
        return not self._done

    def open_batch(self, index: int, batch: Dealer) -> None:
        """Send index and seed of a batch."""
        self._send(np.array([index], np.uint64), BATCH)
        self._send(np.frombuffer(batch.seeds[self.number].reveal(), np.uint8), SEED)

    def give(self, place: int, demand: Demand, corrections: bytes) -> None:
        """Send the corrections for one demand, if there are any."""
        if corrections:
            self._send(np.frombuffer(corrections, np.uint8), f"material{place}")

    def leave(self) -> None:
        """Say that no more comes, and wait until the party is done with this dealer."""
        self._send(np.array([END], np.uint64), BATCH)
        self._until(lambda: self._done, self._line)

    def _send(self, array: np.ndarray, label: str) -> None:
        """Send to a party that may have left: nobody misses what comes after its last word."""
        try:
            self._channel.send(array, label)
        except ChannelError:
            with self._changed:
                if not self._changed.wait_for(lambda: self._done, _LAST_WORD_SECONDS):
                    raise

    def _until(self, ready: Callable[[], bool], line: Lifeline) -> None:
        with self._changed:
            while not ready():
                line.check()
                self._changed.wait(0.2)
            line.check()

    def _listen(self) -> None:
        try:
            if self.number == SERVER:
                self.plan = receive_plan(self._channel)
            hello = self._channel.receive((_DIGEST_BYTES + DEAL_BYTES,), np.uint8, "hello").tobytes()
            self.digest, self.deal = hello[:_DIGEST_BYTES], hello[_DIGEST_BYTES:]
            self._note("_plan_came", True)
            while count := int(self._channel.receive((1,), np.uint64, WANT)[0]):
                self._note("_wanted", self._wanted + count)
            self._note("_done", True)
        except Exception as error:
            # Whatever it is: a thread that ends without a word would leave all parties waiting.
            self._line.fail(error)

    def _note(self, name: str, value: Any) -> None:
        with self._changed:
            setattr(self, name, value)
            self._changed.notify_all()
