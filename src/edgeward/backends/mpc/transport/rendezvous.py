"""How two parties find each other: connect or listen, prove who they are, and agree on what they run."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import final

from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.stream import Deadline, SocketStream, Stream
from edgeward.backends.mpc.transport.tls import Credentials, not_of, secure
from edgeward.core.errors import ConfigError

MAGIC, VERSION = b"EWMP", 2
SESSION_BYTES = 32
_START, _BODY = struct.Struct("<4sHH"), struct.Struct("<B3x32s")
GREETING_BYTES = _START.size + _BODY.size
_RETRY_SECONDS = 0.1
_TLS_RECORDS = range(0x14, 0x18)


@final
@dataclass(frozen=True)
class Meeting:
    """What a party brings to meet another one.

    Args: `party`, `peer`: numbers below 256; `peer_name`: the name in the peer's certificate; `session`: SHA-256 of
    all that both must have equal (network, formats, protocols); `credentials`: None only between processes of one
    machine; `timeout`, `meter`: as of `Channel`; `greeting_timeout`: seconds for handshake and greeting together.
    """

    party: int
    peer: int
    peer_name: str
    session: bytes
    credentials: Credentials | None = None
    timeout: float = 60.0
    greeting_timeout: float = 10.0
    network: Network | None = None
    meter: Meter | None = None

    def __post_init__(self) -> None:
        """Refuse numbers and digests that do not fit."""
        numbers = 0 <= self.party < 256 and 0 <= self.peer < 256 and self.party != self.peer
        if not numbers or len(self.session) != SESSION_BYTES:
            came = f"parties {self.party} and {self.peer}, a session of {len(self.session)} bytes"
            raise ConfigError("no such meeting", expected="two numbers below 256 and a SHA-256 digest", came=came)


def connect(host: str, port: int, meeting: Meeting, *, patience: float = 30.0) -> Channel:
    """Return a channel to the party that listens at `host`:`port`; it may start up to `patience` seconds later.

    Raises: `ChannelError` (unreachable, untrusted, foreign, version, disagreement, ...), `ConfigError`.
    """
    end = time.monotonic() + patience
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic()))
            break
        except OSError as error:
            if time.monotonic() + _RETRY_SECONDS >= end or isinstance(error, socket.gaierror):
                came = error.strerror or "no answer"
                raise ChannelError(Failure.UNREACHABLE, expected=f"{host}:{port}", came=came) from None
            time.sleep(_RETRY_SECONDS)
    return _meet(connection, [meeting], server=False)


@final
class Listener:
    """Waits for one other party at a time; a stranger's failed attempt leaves it open for the next."""

    def __init__(self, host: str, port: int, *meetings: Meeting) -> None:
        """Listen at `host`:`port` (0: any free port) for the peers of `meetings`, which differ in nothing else.

        Raises: `ConfigError`.
        """
        self._meetings, meeting = meetings, meetings[0]
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            fix = "end the program that listens there, or name another port"
            came = error.strerror or "an error"
            raise ConfigError(f"cannot listen at {host}:{port}", came=came, fix=fix) from None
        self.port: int = self._socket.getsockname()[1]
        self.address = f"{host}:{self.port}"
        if meeting.credentials is None:
            try:
                _require_this_machine(self._socket.getsockname()[0])
            except ConfigError:
                self.close()
                raise

    def accept(self, *, patience: float = 30.0) -> Channel:
        """Return a channel to the next party that comes.

        Raises: `ChannelError`, `ConfigError`.
        """
        connection = self.knock(patience)
        if connection is None:
            raise ChannelError(Failure.UNREACHABLE, expected=f"a party within {patience:g} s", came="nobody")
        return self.greet(connection)

    def knock(self, patience: float) -> socket.socket | None:
        """Return the connection of whoever comes next, or None when nobody came. Raises: `ChannelError`."""
        self._socket.settimeout(patience)
        try:
            return self._socket.accept()[0]
        except TimeoutError:
            return None
        except OSError as error:
            raise ChannelError(
                Failure.UNREACHABLE, expected="a connection", came=error.strerror or "an error"
            ) from None

    def greet(self, connection: socket.socket) -> Channel:
        """Return a channel to the party at the other end of `connection`; threads may greet at once.

        Raises: `ChannelError`, `ConfigError`.
        """
        return _meet(connection, self._meetings, server=True)

    def wake(self) -> None:
        """Have a thread in `knock` return."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def __enter__(self) -> Listener:
        """Return the listener."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self.close()


def greet(stream: Stream, meetings: Sequence[Meeting], deadline: Deadline) -> Meeting:
    """Exchange greetings and return the meeting with the peer that came; both ends then know version and session.

    The first 8 bytes (magic, version, bytes that follow) are the same in every version. Raises: `ChannelError`.
    """
    own = meetings[0]
    body = _BODY.pack(own.party, own.session)
    if not stream.offer(_START.pack(MAGIC, VERSION, len(body)) + body, memoryview(b"")):
        stream.push(deadline.left())
    start = _take(stream, _START.size, deadline)
    if len(start) > 1 and start[0] in _TLS_RECORDS and start[1] == 3:
        raise ChannelError(Failure.FOREIGN, expected="a greeting without TLS", came="TLS")
    magic, version, count = _START.unpack(_whole(start, _START.size))
    if magic != MAGIC:
        raise ChannelError(Failure.FOREIGN, expected="a greeting of edgeward", came="something else")
    if version != VERSION:
        raise ChannelError(Failure.VERSION, expected=f"version {VERSION}", came=f"version {version}")
    if count != _BODY.size:
        raise ChannelError(Failure.MALFORMED, expected=f"a greeting of {_BODY.size} bytes", came=f"{count} bytes")
    party, session = _BODY.unpack(_whole(_take(stream, count, deadline), count))
    known = {meeting.peer: meeting for meeting in meetings}
    problems = [f"party {party}"] if party not in known else []
    problems += [f"session {session.hex()[:16]}..."] if session != own.session else []
    if problems:
        expected = f"party {' or '.join(map(str, known))}, session {own.session.hex()[:16]}..."
        raise ChannelError(Failure.DISAGREEMENT, expected=expected, came=", ".join(problems))
    return known[party]


def _take(stream: Stream, count: int, deadline: Deadline) -> bytes:
    """Return `count` bytes, or fewer where the stream ends."""
    raw, got = bytearray(count), 0
    while got < count and (more := stream.receive_into(memoryview(raw)[got:], deadline.left())):
        got += more
    return bytes(raw[:got])


def _whole(raw: bytes, count: int) -> bytes:
    if len(raw) < count:
        fix = "look at the other party's own message; it may want TLS, or another certificate"
        raise ChannelError(Failure.GONE, expected="a greeting", came=f"the end after {len(raw)} bytes of it", fix=fix)
    return raw


def _meet(connection: socket.socket, meetings: Sequence[Meeting], *, server: bool) -> Channel:
    own, names = meetings[0], [meeting.peer_name for meeting in meetings]
    deadline = Deadline(own.greeting_timeout)
    stream: Stream = (plain := SocketStream(connection))
    try:
        if own.credentials is None:
            _require_this_machine(connection.getpeername()[0])
            meeting = greet(stream, meetings, deadline)
        else:
            secured = secure(stream, own.credentials.context(server=server), names, server=server, deadline=deadline)
            stream, meeting = secured, greet(secured, meetings, deadline)
            if meeting.peer_name not in secured.names:
                raise not_of([meeting.peer_name], secured.names)
    except BaseException as error:
        if isinstance(error, ChannelError):
            if server and error.reason is Failure.GONE and not plain.received:
                error = ChannelError(Failure.FOREIGN, expected="a greeting", came="a connection without a word")
            # Our own greeting or alert must reach the other end, or it sees no more than a broken connection.
            stream.finish(0.2)
        stream.release()
        raise error
    return Channel(
        stream,
        party=meeting.party,
        peer=meeting.peer,
        timeout=meeting.timeout,
        network=meeting.network,
        meter=meeting.meter,
    )


def _require_this_machine(address: str) -> None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return
    raise ConfigError(
        "a party on another machine needs TLS",
        expected="credentials, or an address of this machine such as 127.0.0.1",
        came=address,
        fix="make credentials with `write_keys`",
    )
