"""What the parties of a deployment tell each other before anything secret is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import final

import numpy as np

from edgeward.backends.mpc.deployment.stock import DEAL_BYTES, NO_DEAL, Stock
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.plan_text import read_plan, write_plan
from edgeward.backends.mpc.offline.tuples import SupplyError
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.identity import check_identity
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import Meeting
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.errors import ConfigError
from edgeward.native.build import kernels
from edgeward.native.prg import KEY_BYTES

CLIENT, SERVER, DEALER = 0, 1, 2
ASSISTANT = 2
"""The third party's number where three hold shares and nobody deals."""
ROLES = ("client", "server", "dealer")
TRIO_ROLES = ("client", "server", "assistant")
PORTS = {DEALER: 7610, SERVER: 7611}
ASSISTANT_PORT = 7612
PLAN_LIMIT = 1 << 26
_STOCK_LIMIT = 1 << 23
_PROTOCOL = "edgeward secure inference 2"
_TRIO_PROTOCOL = "three parties 1"
_IDLE_SECONDS = 7 * 86400.0
"""A dealer waits until somebody wants material; a host or process that is gone is noticed by the socket itself."""

TRUST = {
    "adversary": "semi-honest, static, one of the parties",
    "trusted": "the dealer, offline: it deals honestly, sees no message and works with no party",
    "public": "architecture, shapes, fixed-point formats, number of records, times",
    "audited": "no",
}
TRIO_TRUST = TRUST | {
    "adversary": "semi-honest, static, one of three parties",
    "trusted": "no party by itself, but that no two of client, server and assistant work together",
}


@final
@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read 'host:port'.

        >>> Address.parse("127.0.0.1:7611"), Address.parse("[::1]:80")
        (Address(host='127.0.0.1', port=7611), Address(host='::1', port=80))
        """
        host, _, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not host or not port.isdecimal() or not 0 <= int(port) < 1 << 16:
            raise ConfigError(
                "the address cannot be read",
                expected="host:port with a port below 65536",
                came=repr(text[:80]),
                fix="write for instance 127.0.0.1:7611",
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        """Return 'host:port'."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@final
@dataclass(frozen=True)
class Terms:
    """How a party meets the others.

    Args: `keys`: its folder of `write_keys`, None only among processes of one machine; `patience`: seconds in which the
    others must appear; `timeout`: seconds for which the other party may compute in silence; `network`: a throttle for
    experiments; `note`: told in one line what happens; `parties`: 2 (and a dealer), or 3 that hold shares.
    """

    keys: Path | None = None
    patience: float = 30.0
    timeout: float = 300.0
    network: Network | None = None
    note: Callable[[str], None] = lambda line: None
    parties: int = 2

    def meeting(self, party: int, peer: int, *, idle: bool = False, meter: Meter | None = None) -> Meeting:
        """Return the meeting of `party` with `peer`; `idle` where silence is no sign of trouble.

        `meter` is that of a party whose channels are counted together. Raises: `ConfigError` for credentials that
        cannot be used, or are not those of `party`.
        """
        names, session = (ROLES, _session()) if self.parties == 2 else (TRIO_ROLES, _trio_session())
        credentials = None if self.keys is None else Credentials(self.keys)
        if credentials is not None:
            check_identity(credentials, names[party])
        # Compiled before anybody waits: the first use on a machine may take a minute.
        kernels()
        timeout = _IDLE_SECONDS if idle else self.timeout
        network = None if idle else self.network
        return Meeting(party, peer, names[peer], session, credentials, timeout, network=network, meter=meter)


def _session() -> bytes:
    try:
        version = metadata.version("edgeward")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return hashlib.sha256(f"{_PROTOCOL}\0{version}".encode()).digest()


def _trio_session() -> bytes:
    return hashlib.sha256(_TRIO_PROTOCOL.encode() + _session()).digest()


def welcome(channel: Channel) -> None:
    """Tell a client that it is the one that is served."""
    channel.send(np.ones(1, np.uint8), "welcome")


def welcomed(channel: Channel) -> None:
    """Wait for the server's `welcome`. Raises: `ChannelError`, `Failure.BUSY` where another client is served."""
    channel.receive((1,), np.uint8, "welcome")


def send_plan(channel: Channel, plan: Plan) -> None:
    """Send a plan as text."""
    channel.send_bytes(write_plan(plan).encode(), "plan")


def receive_plan(channel: Channel) -> Plan:
    """Return the plan that the other party sends. Raises: `DataError`, `ChannelError`."""
    return read_plan(channel.receive_bytes(PLAN_LIMIT, "plan").decode("utf-8", "replace"))


def check_digest(plan: Plan, expected: str) -> None:
    """Raise `ChannelError` (the other party runs something else) for another plan than the expected; "": any."""
    if expected and plan.digest != expected:
        raise ChannelError(Failure.DISAGREEMENT, expected=f"plan {expected}", came=f"plan {plan.digest}")


def agree_deal(channel: Channel, state: int, deal: bytes, *, dealer: bool) -> bytes:
    """Tell the other party which stored deal this one holds; return it where both hold the same, else `NO_DEAL`.

    `dealer`: whether this party has one to ask. Raises: `ConfigError` where one has and the other has not,
    `SupplyError` where neither has and the stores do not fit.
    """
    mine = np.frombuffer(bytes([state, dealer]) + deal, np.uint8)
    theirs = channel.exchange(mine, "deal")
    if bool(theirs[1]) != dealer:
        raise ConfigError(
            "one party has a dealer and the other has none",
            expected="--dealer at both, or --no-dealer at both",
            came="a dealer at " + ("this party" if dealer else "the other party") + " alone",
        )
    same = state > 0 and theirs.tobytes() == mine.tobytes()
    if not same and not dealer:
        raise SupplyError(
            "the stores of the parties do not belong together",
            expected="material of one deal at both",
            fix="fetch from one dealer at both, or name a dealer",
        )
    return deal if same else NO_DEAL


def agree_stock(channel: Channel, stock: Stock) -> None:
    """Leave in both stocks only the batches that both parties have, so that both ask the dealer for as many.

    What one party lost in a crash is of no use at the other, and would take the place of what is. It also ends what an
    older copy of one party's store would bring back: the other party no longer has it. Raises: `ChannelError`,
    `StoreError`.
    """
    own = stock.indices()
    channel.send_bytes(np.array(own, "<u8").tobytes(), "stock")
    raw = channel.receive_bytes(_STOCK_LIMIT, "stock")
    theirs = np.frombuffer(raw[: len(raw) // 8 * 8], "<u8").tolist()
    stock.keep_only(set(own).intersection(theirs))


def meet_dealer(channel: Channel, plan: Plan, number: int, deal: bytes) -> tuple[bytes, bytes | None]:
    """Name the plan and a stored deal to the dealer; return the deal that holds, and the seed for its weights if new.

    Raises: `ChannelError`.
    """
    if number == SERVER:
        send_plan(channel, plan)
    channel.send(np.frombuffer(bytes.fromhex(plan.digest) + deal, np.uint8), "hello")
    answer = channel.receive((1 + DEAL_BYTES,), np.uint8, "deal").tobytes()
    seed = channel.receive((KEY_BYTES,), np.uint8, "seed").tobytes() if answer[0] else None
    if seed is None and answer[1:] != deal:
        raise SupplyError("the dealer goes on with a deal that this party does not hold", fix="delete the store")
    return answer[1:], seed
