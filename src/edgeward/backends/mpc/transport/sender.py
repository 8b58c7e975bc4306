"""The sending half of a channel: frames leave at once if they can, else from a thread, so that nobody waits to send."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import Header, Kind, chunks
from edgeward.backends.mpc.transport.network import Clock, Network, Shaper, WallClock
from edgeward.backends.mpc.transport.stream import Stream

AT_ONCE_BYTES = 1 << 16
_QUEUE_BYTES = 1 << 28
_EMPTY = memoryview(b"")


@final
@dataclass(frozen=True)
class _Frame:
    """A frame in the queue: when it may leave, its header (empty: what the stream still holds), its payload."""

    due: float
    head: bytes
    body: memoryview


@final
class Sender:
    """Numbers frames, keeps their order, and sends them without ever waiting for the other party's sending.

    Small messages leave in the caller's thread while nothing is queued, and so do those of a caller that leads
    (`lead`); all else leaves in a thread of its own. The queue holds copies of at most 256 MiB; then `send` waits. A
    throttled link sends all from the queue, at its time.
    """

    def __init__(self, stream: Stream, timeout: float, network: Network | None, clock: Clock | None = None) -> None:
        """Start the thread; `timeout` seconds without any byte leaving end the channel."""
        self._stream, self._timeout = stream, timeout
        self._clock = clock or WallClock()
        self._shaper = Shaper(network) if network else None
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._queue: deque[_Frame] = deque()
        self._sequence, self._waiting, self._put, self._done = 0, 0, 0, 0
        self._closing, self._led = False, False
        self._offered: _Frame | None = None
        self._failure: ChannelError | None = None
        self._thread = threading.Thread(target=self._run, name="edgeward-sender", daemon=True)
        self._thread.start()

    @property
    def shaped_bytes(self) -> int:
        """Return the bytes that the throttle accounted for; 0 without one."""
        return self._shaper.bytes if self._shaper else 0

    @property
    def failure(self) -> ChannelError | None:
        """Return why the thread ended early, if it did."""
        return self._failure

    def send(self, kind: Kind, payload: memoryview, tag: int, depth: int, *, copy: bool) -> int:
        """Take one message and return the ticket that `flush` waits for; `copy` what has to wait.

        Raises: `ChannelError`, also for what the thread met before.
        """
        with self._changed:
            # The thread gives up by itself when nothing leaves. What is not copied takes no room: two parties that
            # both send before they receive would otherwise wait for each other.
            if copy:
                self._changed.wait_for(self._has_room)
            self._raise_failure()
            at_once = self._shaper is None and self._put == self._done and len(payload) <= AT_ONCE_BYTES
            if at_once:
                if not self._stream.offer(self._head(kind, payload, 0, len(payload), tag, depth), payload):
                    self._enqueue(0.0, b"", _EMPTY)
                return self._put
            body = memoryview(bytes(payload)) if copy else payload
            for start, stop in chunks(len(payload)):
                head = self._head(kind, payload, start, stop, tag, depth)
                size = len(head) + stop - start
                due = self._shaper.due(self._clock.now(), size) if self._shaper else 0.0
                self._enqueue(due, head, body[start:stop])
            return self._put

    def flush(self, ticket: int) -> None:
        """Return when the frames up to `ticket` have left. Raises: `ChannelError`."""
        with self._changed:
            self._changed.wait_for(lambda: self._done >= ticket or self._failure is not None)
            if self._done < ticket:
                self._raise_failure()

    def has_left(self, ticket: int) -> bool:
        """Return whether the frames up to `ticket` have left."""
        return self._done >= ticket

    def lead(self) -> bool:
        """Let the calling thread alone send what it puts in from here on, by `advance`, until all has left.

        A thread that exchanges large messages does both directions itself: a second one would take turns with it on
        one lock and one core. Returns whether it leads: not with a throttle, and not while something waits.
        """
        with self._changed:
            self._led = self._shaper is None and self._put == self._done and not self._closing
            return self._led

    def advance(self) -> bool:
        """Send what leaves without waiting; return whether all has left, which ends the lead.

        Raises: `ChannelError`, unless the connection is gone: the peer's last words may still come.
        """
        try:
            while (frame := self._offered or self._following()) is not None:
                new = self._offered is None and frame.head
                self._offered = frame
                if not (self._stream.offer(frame.head, frame.body, copy=False) if new else self._stream.press()):
                    return False
                self._offered = None
                self._count(frame)
        except ChannelError as error:
            self._give_up(error)
            if error.reason is not Failure.GONE:
                raise
        return True

    def yield_lead(self) -> None:
        """Leave what has not left to the sender's own thread."""
        with self._changed:
            if self._offered is not None:
                self._queue.appendleft(_Frame(0.0, b"", self._offered.body))
                self._offered = None
            self._led = False
            self._changed.notify_all()

    def close(self) -> None:
        """Send what is queued and end the thread. Raises: `ChannelError`."""
        self.flush(self._put)
        self._end()

    def drop(self, error: ChannelError, *, notice: bool) -> None:
        """Throw the queue away, tell the peer to stop if that is possible without waiting, and end the thread."""
        with self._changed:
            idle = self._put == self._done and self._failure is None
            self._failure = self._failure or error
            self._forget()
            if notice and idle:
                try:
                    self._stream.offer(self._head(Kind.ABORT, _EMPTY, 0, 0, 0, 0), _EMPTY)
                except ChannelError:
                    notice = False
        self._end()

    def join(self) -> None:
        """Wait for the thread; the stream must have been woken or the sender closed."""
        self._thread.join()

    def _end(self) -> None:
        with self._changed:
            self._closing = True
            self._stop.set()
            self._changed.notify_all()

    def _head(self, kind: Kind, payload: memoryview, start: int, stop: int, tag: int, depth: int) -> bytes:
        last = stop == len(payload)
        header = Header(kind, last, tag, depth, stop - start, self._sequence, len(payload))
        self._sequence += 1
        return header.pack()

    def _enqueue(self, due: float, head: bytes, body: memoryview) -> None:
        self._queue.append(_Frame(due, head, body))
        self._put += 1
        self._waiting += len(body)
        self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._waiting < _QUEUE_BYTES or self._failure is not None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure.again()

    def _forget(self) -> None:
        self._queue.clear()
        self._waiting = 0
        self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (frame := self._next()) is not None:
                if self._shaper is not None:
                    self._clock.wait_until(frame.due, self._stop)
                left = self._stream.offer(frame.head, frame.body, copy=False) if frame.head else False
                if not left:
                    self._stream.push(self._timeout)
                self._count(frame)
        except ChannelError as error:
            self._give_up(error)
            # A broken connection wakes the receiver by itself, which may still find the peer's last words.
            if error.reason is not Failure.GONE:
                self._stream.wake()
        except BaseException:
            self._give_up(ChannelError(Failure.INTERRUPTED))
            self._stream.wake()
            raise

    def _give_up(self, error: ChannelError) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._forget()

    def _count(self, frame: _Frame) -> None:
        with self._changed:
            self._done += 1
            self._waiting -= len(frame.body)
            self._changed.notify_all()

    def _next(self) -> _Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: (self._queue and not self._led) or self._closing)
            return self._queue.popleft() if self._queue else None

    def _following(self) -> _Frame | None:
        with self._changed:
            self._led = bool(self._queue)
            return self._queue.popleft() if self._led else None
