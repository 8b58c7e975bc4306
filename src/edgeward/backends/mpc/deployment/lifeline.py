"""`Lifeline`: the channels of one party, which end together, and the error that came first in cause."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import final

from edgeward.backends.mpc.deployment.claim import Claim
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure

_CONSEQUENCES = (Failure.CLOSED, Failure.INTERRUPTED)


@final
class Lifeline:
    """As a `with` block: when it fails, or when any thread calls `fail`, every channel tells its peer to stop.

    So no party waits for one that has given up: a broken channel anywhere ends all of them.
    """

    def __init__(self) -> None:
        """Start without channels."""
        self._lock, self._channels = threading.Lock(), list[Channel]()
        self._cause: BaseException | None = None
        self._claims: list[Claim] = []

    def add(self, channel: Channel) -> Channel:
        """Take `channel` in; it is aborted at once if the line has failed already."""
        with self._lock:
            self._channels.append(channel)
            failed = self._cause is not None
        if failed:
            channel.abort()
        return channel

    def hold(self, claim: Claim) -> None:
        """Let go of `claim` when the line ends."""
        self._claims.append(claim)

    def fail(self, error: BaseException) -> None:
        """Abort all channels because of `error`; only the first error counts."""
        with self._lock:
            if self._cause is not None:
                return
            self._cause = error
            channels = list(self._channels)
        for channel in channels:
            channel.abort()

    def check(self) -> None:
        """Raise what the line has failed of, if it has."""
        if self._cause is not None:
            raise self._cause

    def __enter__(self) -> Lifeline:
        """Return the line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channels, or abort them and raise the cause."""
        try:
            self._end(error)
        finally:
            while self._claims:
                self._claims.pop().close()

    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            self.fail(error)
            cause = self._cause
            if cause is not None and cause is not error and _follows(error):
                raise cause from None
            return
        self.check()
        for channel in self._channels:
            # All was said: a party that left without waiting for our goodbye spoils nothing.
            with contextlib.suppress(ChannelError):
                channel.close()


def _follows(error: BaseException) -> bool:
    """Return whether an error is what a thread sees whose channel another one has ended."""
    return isinstance(error, ChannelError) and error.reason in _CONSEQUENCES
