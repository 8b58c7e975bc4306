"""Mutual TLS 1.3 between two named parties, over any stream; reading and writing may be in different threads."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.stream import Deadline, Stream
from edgeward.core.errors import ConfigError

_RAW_BYTES = 1 << 18
AUTHORITY, CERTIFICATE, KEY = "ca.pem", "certificate.pem", "key.pem"


@final
@dataclass(frozen=True)
class Credentials:
    """One party's folder as `keys.write_keys` makes it: its key, its certificate, and the authority it trusts."""

    folder: Path

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return a context for TLS 1.3 only that asks the peer for a certificate of this folder's authority.

        Raises: `ConfigError` for files that are missing, unreadable as what they are, or a key others may read.
        """
        paths = [self.folder / name for name in (AUTHORITY, CERTIFICATE, KEY)]
        missing = [path.name for path in paths if not path.is_file()]
        fix = "make the folder with `edgeward secure keys`"
        within = sorted(path.parent.name for path in self.folder.glob(f"*/{KEY}"))
        if within:
            fix = "name one party's folder: " + ", ".join(f"'{self.folder / name}'" for name in within)
        if missing:
            raise ConfigError(
                f"'{self.folder}' holds no credentials", expected=", ".join(missing), came="no such file", fix=fix
            )
        if os.name == "posix" and stat.S_IMODE(paths[2].stat().st_mode) & 0o077:
            raise ConfigError(f"'{paths[2]}' can be read by others", expected="mode 600", fix=f"chmod 600 '{paths[2]}'")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, not server
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if server:
            context.num_tickets = 0
        try:
            context.load_verify_locations(cafile=paths[0])
            context.load_cert_chain(paths[1], paths[2], password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            came = getattr(error, "reason", None) or "a file of another kind"
            raise ConfigError(
                f"the credentials in '{self.folder}' cannot be read", expected="PEM files", came=came, fix=fix
            ) from None
        return context


def secure(
    stream: Stream, context: ssl.SSLContext, peers: Sequence[str], *, server: bool, deadline: Deadline
) -> TlsStream:
    """Return `stream` under TLS 1.3 once both ends have proved who they are; the other end must be one of `peers`.

    A client names one peer, the party it means to reach.

    Guarantee: against anyone between the parties and anyone without a key of this authority: content and order are
    secret and unaltered (TLS 1.3, assumed). Sizes and times show. No session is resumed.
    Raises: `ChannelError`: untrusted, foreign, gone, timed out.
    """
    secured = TlsStream(stream, context, peers, server=server)
    secured.greet(deadline)
    return secured


@final
class TlsStream(Stream):
    """TLS over another stream, through buffers in memory.

    The encryption state has its own lock and is never held while waiting for the network, so that a thread that
    receives and a thread that sends cannot stop each other.
    """

    def __init__(self, stream: Stream, context: ssl.SSLContext, peers: Sequence[str], *, server: bool) -> None:
        """Prepare; `greet` speaks first."""
        self._stream, self._peers, self._server = stream, tuple(peers), server
        self.names: frozenset[str] = frozenset()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else self._peers[0]
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self._lock, self._raw = threading.Lock(), memoryview(bytearray(_RAW_BYTES))

    def greet(self, deadline: Deadline) -> None:
        """Complete the handshake and check the name in the peer's certificate."""
        try:
            while not self._advance():
                self._flush(deadline.left())
                self._absorb(self._stream.receive_into(self._raw, deadline.left()))
        except ssl.SSLError as error:
            # The alert that tells the other end why must leave too.
            with contextlib.suppress(ChannelError):
                self._flush(deadline.left())
            raise _refusal(error) from None
        self._flush(deadline.left())
        certificate: dict[str, Any] = self._tls.getpeercert() or {}
        self.names = frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
        if self.names.isdisjoint(self._peers):
            raise not_of(self._peers, self.names)

    def offer(self, head: bytes, body: memoryview, *, copy: bool = True) -> bool:
        with self._lock:
            try:
                for part in (head, body):
                    if len(part):
                        self._tls.write(part)
            except ssl.SSLError as error:
                raise _refusal(error) from None
            sealed = self._outgoing.read()
        return self._stream.offer(sealed, memoryview(b""), copy=False)

    def press(self) -> bool:
        return self._stream.press()

    def take(self, view: memoryview) -> int | None:
        while True:
            with self._lock:
                try:
                    return cast(int, self._tls.read(len(view), cast(Any, view)))  # with a buffer it returns the count
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
                except ssl.SSLError as error:
                    raise _refusal(error) from None
            count = self._stream.take(self._raw)
            if count is None:
                return None
            self._absorb(count)

    def wait(self, timeout: float, *, receiving: bool, sending: bool) -> None:
        self._stream.wait(timeout, receiving=receiving, sending=sending)

    def stirs(self, wait: float = 0.0) -> bool:
        with self._lock:
            held = self._tls.pending() + self._incoming.pending
        return bool(held) or self._stream.stirs(wait)

    def finish(self, linger: float) -> None:
        self._stream.finish(linger)

    def wake(self) -> None:
        self._stream.wake()

    def release(self) -> None:
        self._stream.release()

    def _advance(self) -> bool:
        with self._lock:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            return True

    def _flush(self, timeout: float) -> None:
        with self._lock:
            sealed = self._outgoing.read()
        if sealed and not self._stream.offer(sealed, memoryview(b"")):
            self._stream.push(timeout)

    def _absorb(self, count: int) -> None:
        with self._lock:
            if count:
                self._incoming.write(self._raw[:count])
            else:
                self._incoming.write_eof()


def not_of(peers: Sequence[str], names: Collection[str]) -> ChannelError:
    """Return the error of a certificate for `names` where one of `peers` was expected."""
    expected = " or ".join(f"'{peer}'" for peer in peers)
    came = "a certificate of " + (", ".join(sorted(names)) or "nobody")
    return ChannelError(Failure.UNTRUSTED, expected=f"the party {expected}", came=came)


def _no_password() -> str:
    raise ValueError("an encrypted key")


def _refusal(error: ssl.SSLError) -> ChannelError:
    reason = (error.reason or "").replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return ChannelError(
            Failure.UNTRUSTED, expected="a valid certificate of our authority", came=error.verify_message
        )
    if isinstance(error, ssl.SSLEOFError):
        return ChannelError(Failure.GONE, expected="a TLS handshake", came="the end of the connection")
    if "did not return a certificate" in reason:
        # No party of ours comes without one.
        return ChannelError(Failure.FOREIGN, expected="a certificate", came="none")
    if "certificate" in reason or "unknown ca" in reason:
        came = f"our certificate was refused: {reason.removeprefix('tlsv1 ').removeprefix('tlsv13 ')}"
        return ChannelError(Failure.UNTRUSTED, expected="certificates of one authority", came=came)
    if any(word in reason for word in ("wrong version", "http request", "unknown protocol", "unsupported protocol")):
        return ChannelError(Failure.FOREIGN, expected="TLS 1.3", came=reason)
    if any(word in reason for word in ("protocol version", "bad record type", "packet length", "no shared")):
        return ChannelError(Failure.FOREIGN, expected="TLS 1.3", came=reason)
    return ChannelError(
        Failure.MALFORMED, expected="TLS records as the other party sent them", came=reason or "garbage"
    )
