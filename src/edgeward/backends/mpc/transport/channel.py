"""`Channel`: what one party of a secure computation says to another, metered, checked and never silently cut short."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn, final

import numpy as np

from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import Incoming, Kind, tag
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.network import Clock, Network
from edgeward.backends.mpc.transport.sender import AT_ONCE_BYTES, Sender
from edgeward.backends.mpc.transport.stream import Stream
from edgeward.core.errors import ConfigError

_LINGER_SECONDS = 1.0
_LAST_WORDS_SECONDS = 0.2
_ANY_DEPTH = 1 << 32


@final
class Channel:
    """Arrays of integers to and from one other party, in the order of a protocol both follow.

    Labels name the steps; both parties must use the same ones in the same order, or both stop. One thread receives at
    a time; sending waits for nobody but a peer that never reads. After any error the channel is dead and every further
    call raises the same error: what came is used whole or not at all.

    Guarantee: as the stream's: over TLS, content and order are those of the authenticated other party; without, a
    stranger on the wire may read and alter all. In neither case is the other party held to its protocol
    (semi-honest). Sizes, labels' tags and times show to an observer of a plain stream; sizes and times under TLS.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        party: int,
        peer: int | None = None,
        timeout: float = 60.0,
        network: Network | None = None,
        clock: Clock | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Take over an established stream.

        Args: `party`: our number; `peer`: the other's, where it is known; `timeout`: seconds in which some byte must
        move while one is waited for (the peer's longest computation must fit in); `network`: throttle what we send
        (experiments); `clock`: of the throttle; `meter`: of a party with several channels, counted together (what comes
        may then be any number of rounds deep).
        """
        if timeout <= 0:
            raise ConfigError("a channel cannot wait so long", expected="seconds above 0", came=f"{timeout:g}")
        self.party, self.peer, self.meter, self._alone = party, peer, meter or Meter(), meter is None
        self._stream, self._timeout = stream, timeout
        self._sender = Sender(stream, timeout, network, clock)
        self._incoming = Incoming(self._fill)
        self._patience = timeout
        self._receiving, self._ending = threading.RLock(), threading.Lock()
        self._leads, self._ended = False, False
        self._failure: ChannelError | None = None

    @property
    def shaped_bytes(self) -> int:
        """Return the bytes with frame headers that went through the throttle; 0 without one."""
        return self._sender.shaped_bytes

    def send(self, array: np.ndarray, label: str) -> None:
        """Send `array` (integers or booleans, any shape) as step `label`; return without waiting for the other party.

        Cost: its bytes, little endian, and 32 per started MiB. What cannot leave at once is copied.
        Raises: `ChannelError`, `ConfigError`.
        """
        self._send(_bytes(array), label, copy=True)

    def receive(self, shape: tuple[int, ...], dtype: np.dtype | type, label: str) -> np.ndarray:
        """Return the array of step `label`, whose shape and type both parties know. Raises: `ChannelError`."""
        wire = _wire_type(np.dtype(dtype))
        raw = np.empty(math.prod(shape) * wire.itemsize, np.uint8)
        self._receive(raw.data, label)
        if wire.kind == "b" and raw.max(initial=0) > 1:
            self._fail(ChannelError(Failure.MALFORMED, expected="booleans of 0 and 1", came=f"{raw.max()}"))
        return raw.view(wire).astype(dtype, copy=False).reshape(shape)

    def exchange(self, array: np.ndarray, label: str) -> np.ndarray:
        """Send `array` and return the peer's of the same shape and type: one round. Raises: `ChannelError`."""
        return self.exchange_all([array], [label])[0]

    def exchange_all(self, arrays: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
        """Send all arrays, then return the peer's of the same shapes and types: one round. Raises: `ChannelError`.

        Until it returns the arrays must not change. Whatever interrupts it ends the channel.
        """
        steps = list(zip(arrays, [_bytes(array) for array in arrays], labels, strict=True))
        large, alone = any(len(view) > AT_ONCE_BYTES for _, view, _ in steps), False
        try:
            # Another thread that receives may wait for the answer to what is sent here: this one then leads nothing.
            if large and (alone := self._receiving.acquire(blocking=False)):
                self._leads = self._sender.lead()
            tickets = [self._send(view, label, copy=False) for _, view, label in steps]
            others = [self.receive(array.shape, array.dtype, label) for array, _, label in steps]
            if tickets:
                self._flush(tickets[-1], leading=alone)
        except BaseException:
            # The caller may change the arrays from now on, and a part of them may not have left.
            self._end(ChannelError(Failure.INTERRUPTED))
            raise
        finally:
            if alone:
                self._leads = False
                self._sender.yield_lead()
                self._receiving.release()
        return others

    def _advance(self) -> None:
        self._leads = self._leads and not self._sender.advance()

    def _flush(self, ticket: int, *, leading: bool) -> None:
        try:
            while leading and self._leads and not self._sender.has_left(ticket):
                self._stream.wait(self._timeout, receiving=False, sending=True)
                self._advance()
            self._sender.flush(ticket)
        except ChannelError as error:
            self._fail(error)

    def send_bytes(self, content: bytes, label: str) -> None:
        """Send content whose length the other party does not know: 8 bytes of length, then the bytes."""
        self.send(np.array([len(content)], np.uint64), f"{label}/length")
        self.send(np.frombuffer(content, np.uint8), label)

    def receive_bytes(self, limit: int, label: str) -> bytes:
        """Return content of at most `limit` bytes. Raises: `ChannelError`."""
        count = int(self.receive((1,), np.uint64, f"{label}/length")[0])
        if count > limit:
            self._fail(ChannelError(Failure.MALFORMED, expected=f"at most {limit} bytes", came=f"{count} bytes"))
        return self.receive((count,), np.uint8, label).tobytes()

    def stirs(self, wait: float = 0.0) -> bool:
        """Return within `wait` seconds whether the other party says something or is gone: `receive` then tells which.

        Raises: `ChannelError` for a channel that has ended.
        """
        self._check()
        return self._stream.stirs(wait)

    def check_quiet(self) -> None:
        """Raise `ChannelError` if the other party, which has nothing to say now, is gone or has stopped."""
        if self.stirs():
            self._receive(memoryview(bytearray(0)), "nothing")

    def close(self) -> None:
        """Send what is queued, say goodbye and free the socket; waits at most a second for the other party to close.

        Never raises for a channel that is closed or has failed already. Raises: `ChannelError` for what cannot be sent.
        """
        if self._failure is None:
            try:
                self._sender.send(Kind.BYE, memoryview(b""), 0, 0, copy=False)
                self._sender.close()
            except ChannelError as error:
                self._end(error)
                raise
            self._stream.finish(_LINGER_SECONDS)
        self._end(ChannelError(Failure.CLOSED))

    def abort(self) -> None:
        """Tell the other party that this one stops because of a failure, and free the socket; never raises."""
        self._end(ChannelError(Failure.CLOSED), notice=True)

    def turn_away(self) -> None:
        """Tell the other party that this one is busy with somebody else, and free the socket; never raises."""
        with contextlib.suppress(ChannelError):
            self._sender.send(Kind.BUSY, memoryview(b""), 0, 0, copy=False)
            self._sender.close()
            self._stream.finish(_LAST_WORDS_SECONDS)
        self._end(ChannelError(Failure.CLOSED))

    def __enter__(self) -> Channel:
        """Return the channel."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or abort if the block failed."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def _send(self, view: memoryview, label: str, *, copy: bool) -> int:
        self._check()
        try:
            return self._sender.send(Kind.DATA, view, tag(label), self.meter.note_sent(label, len(view)), copy=copy)
        except ChannelError as error:
            self._fail(error)
        except BaseException:
            # Nobody knows where in a frame the stream stands.
            self._end(ChannelError(Failure.INTERRUPTED))
            raise

    def _receive(self, view: memoryview, label: str) -> None:
        try:
            with self._receiving:
                self._check()
                depth = self._incoming.message(view, label, sent_depth=self._deepest)
        except ChannelError as error:
            self._fail(error, words=False)
        except BaseException:
            # Half a frame is gone: the next bytes would be taken for something else.
            self._end(ChannelError(Failure.INTERRUPTED), notice=True)
            raise
        self.meter.note_received(label, len(view), depth)

    def _deepest(self) -> int:
        return self.meter.deepest_sent if self._alone else _ANY_DEPTH

    def _fill(self, view: memoryview) -> None:
        got = 0
        while self._leads and got < len(view):
            self._advance()
            count = self._stream.take(view[got:])
            if count is None:
                self._stream.wait(self._patience, receiving=True, sending=self._leads)
            elif count == 0:
                break
            got += count or 0
        self._stream.fill(view[got:] if got else view, self._patience)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure.again()

    def _fail(self, error: ChannelError, *, words: bool = True) -> NoReturn:
        """End the channel and raise why; a broken connection is explained by the peer's last words, if it left any."""
        if error.reason is Failure.GONE and words and self._receiving.acquire(blocking=False):
            try:
                self._patience = _LAST_WORDS_SECONDS
                self._incoming.skip_to_notice()
            except ChannelError as last:
                error = last if last.reason in (Failure.ABORTED, Failure.FINISHED, Failure.BUSY) else error
            finally:
                self._receiving.release()
        if error.reason is Failure.GONE:
            # The sending thread may have ended the connection for a reason of its own.
            error = self._sender.failure or error
        ours = error.reason in (Failure.MALFORMED, Failure.OUT_OF_STEP, Failure.TIMED_OUT)
        self._end(error, notice=ours)
        raise (self._failure or error).again() from None

    def _end(self, error: ChannelError, *, notice: bool = False) -> None:
        with self._ending:
            if not self._ended:
                self._failure = self._failure or error
                self._sender.drop(self._failure, notice=notice)
                if notice:
                    self._stream.finish(_LAST_WORDS_SECONDS)
                self._stream.wake()
                self._sender.join()
                # Only now: where this is interrupted, the next call does it.
                self._ended = True
        # A thread inside `receive` still holds the socket; it was woken and leaves by itself.
        if self._receiving.acquire(timeout=_LINGER_SECONDS):
            try:
                self._stream.release()
            finally:
                self._receiving.release()


def _wire_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in "iub":
        expected = "integers or booleans: shares and masked values are nothing else"
        raise ConfigError("this array may not be sent", expected=expected, came=str(dtype))
    wire: np.dtype[Any] = dtype.newbyteorder("<")
    return wire


def _bytes(array: np.ndarray) -> memoryview:
    flat = np.ascontiguousarray(array, _wire_type(array.dtype)).reshape(-1)
    return flat.view(np.uint8).data
