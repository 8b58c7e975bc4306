"""Streams of bytes between two parties: sockets that never block for longer than they were told to."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from edgeward.backends.mpc.transport.failures import ChannelError, Failure

_DRAIN_BYTES = 1 << 16
_DEAD_HOST_SECONDS = 4


class Stream(ABC):
    """An ordered stream of bytes; one thread may send while another receives."""

    @abstractmethod
    def offer(self, head: bytes, body: memoryview, *, copy: bool = True) -> bool:
        """Take both for sending without waiting; return whether all has left, else `press` or `push` must follow.

        Without `copy` what has not left is read from `body` then: it must stay as it is until then.
        """

    @abstractmethod
    def press(self) -> bool:
        """Send, without waiting, of what `offer` has taken; return whether all has left. Raises: `ChannelError`."""

    @abstractmethod
    def take(self, view: memoryview) -> int | None:
        """Fill a part of `view` without waiting.

        Returns its bytes, 0 at the end of the stream, None where nothing has come. Raises: `ChannelError` (gone).
        """

    @abstractmethod
    def wait(self, timeout: float, *, receiving: bool, sending: bool) -> None:
        """Return when something has come, if `receiving`, or can leave, if `sending`.

        Raises: `ChannelError` (timed out) after `timeout` seconds.
        """

    @abstractmethod
    def stirs(self, wait: float = 0.0) -> bool:
        """Return within `wait` seconds whether there is something to receive, or the end of the stream."""

    @abstractmethod
    def finish(self, linger: float) -> None:
        """Say that no more will be sent, and read away what still comes for at most `linger` seconds."""

    @abstractmethod
    def wake(self) -> None:
        """End the connection, so that no thread stays in `push` or `receive_into`."""

    @abstractmethod
    def release(self) -> None:
        """Give the socket back; no thread may use the stream after this."""

    def push(self, timeout: float) -> None:
        """Send what `offer` has taken. Raises: `ChannelError` (timed out: nothing left for `timeout` seconds; gone)."""
        while not self.press():
            self.wait(timeout, receiving=False, sending=True)

    def receive_into(self, view: memoryview, timeout: float) -> int:
        """Fill a part of `view` and return its bytes, 0 at the end of the stream. Raises like `push`."""
        while (count := self.take(view)) is None:
            self.wait(timeout, receiving=True, sending=False)
        return count

    def fill(self, view: memoryview, timeout: float) -> None:
        """Fill `view` completely. Raises: `ChannelError` (gone) when the stream ends before."""
        got = 0
        while got < len(view):
            count = self.receive_into(view[got:], timeout)
            if count == 0:
                raise ChannelError(Failure.GONE, expected=f"{len(view)} bytes", came=f"the end after {got} bytes")
            got += count


@final
class SocketStream(Stream):
    """A connected socket without encryption.

    On TCP: no delay for small frames, and a host that vanished while nothing was on its way to it is noticed within
    about 5 seconds (keep-alive probes each second, by their settings; Linux, elsewhere as far as the system allows).
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take the socket over."""
        connection.setblocking(False)
        self._socket, self._left, self.received = connection, list[memoryview](), 0
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            _tune(connection)

    def offer(self, head: bytes, body: memoryview, *, copy: bool = True) -> bool:
        sent = 0 if self._left else self._attempt((head, body))
        if sent == len(head) + len(body):
            return not self._left
        rest = (memoryview(head)[sent:], body[max(0, sent - len(head)) :])
        self._left += [memoryview(bytes(part)) if copy else part for part in rest if part]
        return False

    def press(self) -> bool:
        while self._left:
            sent = self._attempt(self._left)
            if sent == 0:
                return False
            while self._left and sent >= len(self._left[0]):
                sent -= len(self._left.pop(0))
            if sent:
                self._left[0] = self._left[0][sent:]
        return True

    def take(self, view: memoryview) -> int | None:
        try:
            count = self._socket.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise gone(error) from None
        self.received += count
        return count

    def wait(self, timeout: float, *, receiving: bool, sending: bool) -> None:
        poll = select.poll()
        poll.register(self._socket, (select.POLLIN if receiving else 0) | (select.POLLOUT if sending else 0))
        if not poll.poll(max(0.0, timeout) * 1000):
            what = " or ".join(["bytes"] * receiving + ["room for bytes"] * sending)
            raise ChannelError(Failure.TIMED_OUT, expected=f"{what} within {timeout:g} s", came="none")

    def stirs(self, wait: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(wait * 1000))

    def finish(self, linger: float) -> None:
        until, scrap = time.monotonic() + linger, memoryview(bytearray(_DRAIN_BYTES))
        with contextlib.suppress(OSError, ChannelError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0 and self.receive_into(scrap, left):
                pass

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        self._socket.close()

    def _attempt(self, parts: Sequence[bytes | memoryview]) -> int:
        try:
            return self._socket.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise gone(error) from None


def gone(error: OSError) -> ChannelError:
    """Return the error of a connection that the system reports as broken."""
    return ChannelError(Failure.GONE, came=(error.strerror or type(error).__name__).lower())


@final
class Deadline:
    """A moment after which a greeting is given up, however slowly its bytes come."""

    def __init__(self, seconds: float) -> None:
        """Begin now."""
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left. Raises: `ChannelError` (timed out) when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            expected = f"a greeting within {self._seconds:g} s"
            raise ChannelError(Failure.TIMED_OUT, expected=expected, came="a part of one at most")
        return left


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # No TCP_USER_TIMEOUT: Linux would also end the connection to a live party that computes and does not read.
    probes = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": _DEAD_HOST_SECONDS - 1}
    for name, value in probes.items():
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
