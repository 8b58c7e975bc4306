"""What the parties of a deployment tell each other before anything secret is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import final

import numpy as np

from edgeward.backends.mpc.deployment.stock import DEAL_BYTES, NO_DEAL
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.plan_text import read_plan, write_plan
from edgeward.backends.mpc.offline.tuples import SupplyError
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.errors import ConfigError
from edgeward.native.build import kernels
from edgeward.native.prg import KEY_BYTES

CLIENT, SERVER, DEALER = 0, 1, 2
ROLES = ("client", "server", "dealer")
PORTS = {DEALER: 7610, SERVER: 7611}
PLAN_LIMIT = 1 << 26
_PROTOCOL = "edgeward secure inference 1"
_SLICE_SECONDS = 0.25
_STRANGERS = (Failure.TIMED_OUT, Failure.FOREIGN)
_IDLE_SECONDS = 7 * 86400.0
"""A dealer waits until somebody wants material; a host or process that is gone is noticed by the socket itself."""

TRUST = {
    "adversary": "semi-honest, static, one of the parties",
    "trusted": "the dealer, offline: it deals honestly, sees no message and works with no party",
    "public": "architecture, shapes, fixed-point formats, number of records, times",
    "audited": "no",
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
    experiments; `note`: told in one line what happens.
    """

    keys: Path | None = None
    patience: float = 30.0
    timeout: float = 300.0
    network: Network | None = None
    note: Callable[[str], None] = lambda line: None

    def meeting(self, party: int, peer: int, *, idle: bool = False) -> Meeting:
        """Return the meeting of `party` with `peer`; `idle` where silence is no sign of trouble."""
        # Compiled before anybody waits: the first use on a machine may take a minute.
        kernels()
        credentials = None if self.keys is None else Credentials(self.keys)
        if credentials is not None:
            credentials.context(server=party != CLIENT)
        timeout = _IDLE_SECONDS if idle else self.timeout
        network = None if idle else self.network
        return Meeting(party, peer, ROLES[peer], _session(), credentials, timeout, network=network)


def _session() -> bytes:
    try:
        version = metadata.version("edgeward")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return hashlib.sha256(f"{_PROTOCOL}\0{version}".encode()).digest()


def accept(
    listener: Listener, terms: Terms, check: Callable[[], None] = lambda: None, without: frozenset[int] = frozenset()
) -> Channel:
    """Return a channel to the next party. What speaks no protocol of ours is noted and not answered.

    Raises: `ChannelError` for a wrong certificate, version or session, for a party that broke off while it greeted, and
    when nobody came; what `check` raises.
    """
    slices = max(1, round(terms.patience / _SLICE_SECONDS))
    for _ in range(slices):
        check()
        try:
            return listener.accept(patience=min(_SLICE_SECONDS, terms.patience), without=without)
        except ChannelError as error:
            if error.reason in _STRANGERS:
                terms.note(f"a stranger was turned away: {error.reason.value}")
            elif error.reason is not Failure.UNREACHABLE:
                raise
    raise ChannelError(Failure.UNREACHABLE, expected=f"a party within {terms.patience:g} s", came="nobody")


def send_plan(channel: Channel, plan: Plan) -> None:
    """Send a plan as text."""
    channel.send_bytes(write_plan(plan).encode(), "plan")


def receive_plan(channel: Channel) -> Plan:
    """Return the plan that the other party sends. Raises: `DataError`, `ChannelError`."""
    return read_plan(channel.receive_bytes(PLAN_LIMIT, "plan").decode("utf-8", "replace"))


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
