"""`Reception`: who comes to a party that waits; a slow stranger keeps nobody waiting, a late party hears why."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import final

from edgeward.backends.mpc.deployment.agreement import ROLES, TRIO_ROLES, Terms
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.rendezvous import Listener

_SLICE_SECONDS = 0.25
_AT_ONCE = 32
"""Greetings under way; the oldest is given up for a further one."""
_STRANGERS = (Failure.TIMED_OUT, Failure.FOREIGN)


@final
class Reception:
    """As a `with` block: greets all who come to `listener`, each in a thread of its own.

    Guarantee: who connects and proves nothing costs a socket and a thread for at most the seconds of a greeting, and
    delays nobody. Who begins a TLS greeting and breaks off is taken for a party that died, and stops the wait.
    """

    def __init__(self, listener: Listener, terms: Terms) -> None:
        """Prepare to listen at `listener`, which is open as long as the block."""
        self._listener, self._terms = listener, terms
        terms.note(f"waiting at {listener.address}")
        self._lock, self._full, self._closed = threading.Lock(), False, False
        self._arrived: queue.SimpleQueue[Channel | BaseException] = queue.SimpleQueue()
        self._greeted: deque[socket.socket] = deque()
        self._thread = threading.Thread(target=self._run, name="edgeward-reception", daemon=True)

    def next(self, check: Callable[[], None], without: Collection[int] = ()) -> Channel:
        """Return a channel to the next party; what speaks no protocol of ours is noted, one of `without` turned away.

        Raises: `ChannelError` for a wrong certificate, version or session, for a party that broke off while it
        greeted, and when nobody came; what `check`, called several times a second, raises.
        """
        end = time.monotonic() + self._terms.patience
        while True:
            check()
            try:
                arrived = self._arrived.get(timeout=max(0.0, min(_SLICE_SECONDS, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() < end:
                    continue
                expected = f"a party within {self._terms.patience:g} s"
                raise ChannelError(Failure.UNREACHABLE, expected=expected, came="nobody") from None
            if isinstance(arrived, Channel):
                if arrived.peer not in without:
                    return arrived
                self._turn_away(arrived)
            elif isinstance(arrived, ChannelError) and arrived.reason in _STRANGERS:
                self._terms.note(f"a stranger was turned away: {arrived.reason.value}")
            else:
                raise arrived

    def fill(self) -> None:
        """Turn away from now on whoever comes."""
        with self._lock:
            self._full = True
        self._empty()

    def __enter__(self) -> Reception:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and end the greetings that are under way."""
        with self._lock:
            self._full = self._closed = True
            left = list(self._greeted)
        self._listener.wake()
        for connection in left:
            _end(connection)
        self._thread.join()
        self._empty()

    def _run(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.knock(_SLICE_SECONDS)
            except Exception as error:
                # Whatever it is: the party that waits must hear of it.
                self._arrived.put(error)
                return
            if connection is not None:
                self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        with self._lock:
            self._greeted.append(connection)
            oldest = self._greeted.popleft() if len(self._greeted) > _AT_ONCE else None
        if oldest is not None:
            _end(oldest)
        threading.Thread(target=self._greet, args=(connection,), name="edgeward-greeting", daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        found: Channel | BaseException
        try:
            found = self._listener.greet(connection)
        except Exception as error:
            found = error
        with self._lock:
            given_up = connection not in self._greeted
            if not given_up:
                self._greeted.remove(connection)
            if not self._full and not (given_up and isinstance(found, BaseException)):
                self._arrived.put(found)
                return
        if isinstance(found, Channel):
            self._turn_away(found)

    def _turn_away(self, channel: Channel) -> None:
        names = ROLES if self._terms.parties == 2 else TRIO_ROLES
        name = "party" if channel.peer is None else names[channel.peer]
        self._terms.note(f"a further {name} was turned away: one is served already")
        channel.turn_away()

    def _empty(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                arrived = self._arrived.get_nowait()
                if isinstance(arrived, Channel):
                    self._turn_away(arrived)


def _end(connection: socket.socket) -> None:
    """End a connection that another thread reads from."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
