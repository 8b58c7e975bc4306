"""How a server or a client joins a deployment: the other party, the dealer, the weights opened or still held."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.deployment.agreement import (
    DEALER,
    ROLES,
    TRIO_TRUST,
    TRUST,
    Address,
    Terms,
    agree_deal,
    agree_stock,
    meet_dealer,
)
from edgeward.backends.mpc.deployment.claim import Claim
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.deployment.stock import HELD, NO_DEAL, MemoryStock, Stock
from edgeward.backends.mpc.deployment.store import TupleStore
from edgeward.backends.mpc.deployment.streamed import StoredTuples, StreamedTuples
from edgeward.backends.mpc.inference.expense import CostTable, cost_table, metered
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.session import Model, Session, encoded
from edgeward.backends.mpc.offline.source import TupleSource, supply_of
from edgeward.backends.mpc.offline.tuples import Supply, SupplyError
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.meter import Reading
from edgeward.backends.mpc.transport.rendezvous import connect
from edgeward.core.errors import ConfigError

_STOP, _GO, _FETCH = 0, 1, 2
_LARGE = 1 << 29


@final
@dataclass(frozen=True)
class Material:
    """Where a party's material comes from: a dealer's address or None, how many batches ahead, a folder or None."""

    dealer: Address | None
    ahead: int = 2
    store: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no party holds."""
        if not 1 <= self.ahead < 1 << 16:
            raise ConfigError("no such number of batches ahead", expected="1 to 65535", came=str(self.ahead))


@final
@dataclass(frozen=True)
class Expense:
    """What a party counted: payload bytes it sent, rounds, seconds; `setup` once, the rest summed over batches."""

    role: str
    plan: str
    batches: int
    setup: Cost
    online: Cost
    offline_received: int
    seconds_online: float
    seconds_prepare: float
    agrees: bool
    table: CostTable
    parties: int = 2

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, with the words about trust."""
        return {
            "kind": "deployment",
            "parties": self.parties,
            "role": self.role,
            "plan": self.plan,
            "batches": self.batches,
            "bytes_sent": self.online.bytes,
            "rounds": self.online.rounds,
            "setup_bytes_sent": self.setup.bytes,
            "setup_rounds": self.setup.rounds,
            "offline_bytes_received": self.offline_received,
            "seconds_online": self.seconds_online,
            "seconds_prepare": self.seconds_prepare,
            "metered_equals_declared": self.agrees,
            "counted": "payload bytes, without frame headers and TLS",
            **(TRUST if self.parties == 2 else TRIO_TRUST),
        }


@final
class Joined:
    """One party of a running deployment: weights opened, ready for batches."""

    def __init__(
        self,
        plan: Plan,
        number: int,
        peer: Channel,
        line: Lifeline,
        terms: Terms,
        material: Material,
        dealer: Channel | None,
        model: Model | None = None,
    ) -> None:
        """Agree with `peer` on a deal, greet the dealer, open the weights. Raises: see `deal`, `Session`."""
        self._plan, self._number, self._peer, self._terms = plan, number, peer, terms
        elements = None if model is None else encoded(plan, model)
        digest = _digest(elements)
        stock: Stock = MemoryStock()
        if material.store is not None:
            line.hold(Claim(TupleStore.lock(material.store, plan, number)))
            stock = TupleStore(material.store, plan, number, elements)
        state, deal = stock.state()
        held = stock.held(digest) if state == HELD else None
        if state == HELD and held is None:
            terms.note("the model is not the one of the store: its material is thrown away")
            state, deal = 0, NO_DEAL
        same = agree_deal(peer, state, deal, dealer=dealer is not None)
        if same != NO_DEAL:
            agree_stock(peer, stock)
        self._dealer, own = dealer, 0 if material.store is None else material.ahead
        self._most = min(own, int(peer.exchange(np.array([own], np.uint32), "ahead")[0]))
        self._stock = stock
        self._source: TupleSource = StoredTuples(stock, plan, number)
        if dealer is not None:
            found, seed = meet_dealer(dealer, plan, number, same)
            if seed is not None:
                stock.begin(found, [seed])
                held = None
            self._source = StreamedTuples(dealer, stock, plan, number, ahead=material.ahead, failed=line.fail)
        ring, before = plan.ring, peer.meter.reading()
        party = Party(number, ring, peer)
        supply = None if held is not None else supply_of(ring, number, plan.setup, stock.take_setup())
        self._session = Session(party, plan, supply, model, held=held)
        if held is None:
            stock.hold(self._session.held, digest)
        self._setup, self._opened = peer.meter.reading() - before, held is None
        self._readings: list[Reading] = []
        self._online = self._prepare = 0.0

    def check_supply(self, count: int) -> None:
        """Raise `SupplyError` where `count` batches would use up all there is and be given no answer for it."""
        if self._dealer is None and (waiting := len(self._stock.indices())) < count:
            raise SupplyError(
                "the stores hold too few batches for these records",
                expected=f"{count} batches",
                came=f"{waiting}; none was used",
                fix="fetch more, name a dealer, or ask about fewer records",
            )

    def batch(self, records: np.ndarray | None) -> np.ndarray | None:
        """Run one batch (the client's side), while the server is in `next_batch`. Raises: as `Session.run`."""
        self._peer.send(np.array([_GO], np.uint8), "next")
        return self._run(records)

    def next_batch(self) -> bool:
        """Do what the client asks for (the server's side); return False when that was no batch: it is done."""
        command = int(self._peer.receive((1,), np.uint8, "next")[0])
        if command == _GO:
            self._run(None)
        elif command == _FETCH:
            count = int(self._peer.receive((1,), np.uint32, "fetch")[0])
            self._check_fetch(count)
            self._fetch(count)
        return command == _GO

    def leave(self) -> None:
        """Tell the server that no batch follows (the client's side)."""
        self._peer.send(np.array([_STOP], np.uint8), "next")

    def fetch(self, count: int) -> None:
        """Have both parties wait until `count` batches are in their stores, instead of `leave` (the client's side)."""
        self._check_fetch(count)
        self._peer.send(np.array([_FETCH], np.uint8), "next")
        self._peer.send(np.array([count], np.uint32), "fetch")
        self._fetch(count)

    def close(self) -> Expense:
        """Let the dealer go and return what was counted."""
        self._source.close()
        declared = cost_table(self._plan)
        # The corrections are the dealer's to count: rows here hold what the two parties sent each other.
        tables = [metered(self._plan, self._setup, reading, {}) for reading in self._readings]
        same = all(_talk(t, setup=self._opened) == _talk(declared, setup=self._opened) for t in tables)
        online = sum((table.online for table in tables), Cost())
        received = 0 if self._dealer is None else self._dealer.meter.reading().received
        return Expense(
            ROLES[self._number],
            self._plan.digest,
            len(tables),
            Cost(self._setup.sent, self._setup.rounds),
            online,
            received,
            self._online,
            self._prepare,
            same,
            tables[0] if tables else declared,
        )

    def _check_fetch(self, count: int) -> None:
        """Raise `ConfigError` before a word where one of the parties cannot hold that much, or keeps nothing."""
        if not isinstance(self._source, StreamedTuples) or not self._most:
            raise ConfigError("nothing to fetch into", expected="a dealer, and a store at both parties")
        if count > self._most:
            raise ConfigError(
                "the stores hold fewer batches than shall be fetched",
                expected=f"at most {self._most}, which one of the parties allows",
                came=str(count),
                fix=f"start the server with --ahead {count}, or fetch {self._most}",
            )

    def _fetch(self, count: int) -> None:
        if not isinstance(self._source, StreamedTuples):
            raise TypeError("checked before")
        self._source.wait_for(count, self._terms.timeout)
        self._peer.exchange(np.zeros(1, np.uint8), "fetched")

    def _agreed(self) -> Supply:
        """Return the next batch, which no party holds any more when the other one says the first word of it."""
        own = self._source.next_index(self._terms.timeout)
        supply = self._source.take(own, self._terms.timeout)
        theirs = int(self._peer.exchange(np.array([own], np.uint64), "index")[0])
        if own != theirs:
            raise SupplyError(
                "the parties hold different batches",
                expected=f"batch {own} at both",
                came=f"batch {theirs} at the other party",
                fix="start both again: they then throw away what only one of them holds",
            )
        return supply

    def _run(self, records: np.ndarray | None) -> np.ndarray | None:
        start = time.monotonic()
        supply = self._agreed()
        large = sum(demand.offline_bytes(self._plan.ring) for demand in self._plan.demands) > _LARGE
        request = self._session.prepare_later(supply) if large else self._session.prepare(supply)
        prepared, before = time.monotonic(), self._peer.meter.reading()
        answer = self._session.run(request, records)
        self._readings.append(self._peer.meter.reading() - before)
        self._prepare += prepared - start
        self._online += time.monotonic() - prepared
        return answer


def reach_dealer(address: Address | None, number: int, line: Lifeline, terms: Terms, patience: float) -> Channel | None:
    """Return a channel to the dealer, or None without one. Raises: `ChannelError`.

    A party connects before it says a word about plans, so that all three know of each other, and one that dies takes
    the others with it.
    """
    if address is None:
        return None
    meeting = terms.meeting(number, DEALER, idle=True)
    terms.note(f"looking for the dealer at {address}")
    try:
        return line.add(connect(address.host, address.port, meeting, patience=patience))
    except ChannelError as error:
        fix = "start the dealer first, or use what the stores hold (--no-dealer at both)"
        fix = fix if error.reason is Failure.UNREACHABLE else ""
        raise ChannelError(error.reason, expected=f"the dealer: {error.expected}", came=error.came, fix=fix) from None


def _digest(elements: Mapping[str, np.ndarray] | None) -> bytes:
    found = hashlib.sha256()
    for name, array in (elements or {}).items():
        found.update(name.encode() + b"\0" + array.tobytes())
    return found.digest()


def _talk(table: CostTable, *, setup: bool) -> list[tuple[Cost, Cost]]:
    return [(row.online, row.setup if setup else Cost()) for row in table.rows]
