"""How two parties find each other: connect or listen, prove who they are, and agree on what they run."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import final

from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.stream import Deadline, SocketStream, Stream
from edgeward.backends.mpc.transport.tls import Credentials, secure
from edgeward.core.errors import ConfigError

MAGIC, VERSION = b"EWMP", 1
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
    machine; `timeout`: as of `Channel`; `greeting_timeout`: seconds for handshake and greeting together.
    """

    party: int
    peer: int
    peer_name: str
    session: bytes
    credentials: Credentials | None = None
    timeout: float = 60.0
    greeting_timeout: float = 10.0
    network: Network | None = None

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
    return _meet(connection, meeting, server=False)


@final
class Listener:
    """Waits for one other party at a time; a stranger's failed attempt leaves it open for the next."""

    def __init__(self, host: str, port: int, meeting: Meeting) -> None:
        """Listen at `host`:`port` (0: any free port). Raises: `ConfigError`."""
        self._meeting = meeting
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(f"cannot listen at {host}:{port}", came=error.strerror or "an error") from None
        self.port: int = self._socket.getsockname()[1]
        if meeting.credentials is None:
            try:
                _require_this_machine(self._socket.getsockname()[0])
            except ConfigError:
                self.close()
                raise

    def accept(self, *, patience: float = 30.0) -> Channel:
        """Return a channel to the next party that comes. Raises: `ChannelError`, `ConfigError`."""
        self._socket.settimeout(patience)
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            came = "nobody" if isinstance(error, TimeoutError) else (error.strerror or "an error")
            raise ChannelError(Failure.UNREACHABLE, expected=f"a party within {patience:g} s", came=came) from None
        return _meet(connection, self._meeting, server=True)

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


def greet(stream: Stream, meeting: Meeting, deadline: Deadline) -> None:
    """Exchange greetings; both ends then know version, party and session of each other.

    The first 8 bytes (magic, version, bytes that follow) are the same in every version. Raises: `ChannelError`.
    """
    body = _BODY.pack(meeting.party, meeting.session)
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
    problems = [f"party {party}"] if party != meeting.peer else []
    problems += [f"session {session.hex()[:16]}..."] if session != meeting.session else []
    if problems:
        expected = f"party {meeting.peer}, session {meeting.session.hex()[:16]}..."
        raise ChannelError(Failure.DISAGREEMENT, expected=expected, came=", ".join(problems))


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


def _meet(connection: socket.socket, meeting: Meeting, *, server: bool) -> Channel:
    deadline = Deadline(meeting.greeting_timeout)
    stream: Stream = SocketStream(connection)
    try:
        if meeting.credentials is None:
            _require_this_machine(connection.getpeername()[0])
        else:
            context = meeting.credentials.context(server=server)
            stream = secure(stream, context, meeting.peer_name, server=server, deadline=deadline)
        greet(stream, meeting, deadline)
    except BaseException as error:
        if isinstance(error, ChannelError):
            # Our own greeting or alert must reach the other end, or it sees no more than a broken connection.
            stream.finish(0.2)
        stream.release()
        raise
    return Channel(stream, party=meeting.party, timeout=meeting.timeout, network=meeting.network)


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
