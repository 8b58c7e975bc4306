"""Why a channel between two parties ends: one error, with a reason that a program can read."""

from __future__ import annotations

from enum import Enum
from typing import final

from edgeward.core.errors import EdgewardError


@final
class Failure(Enum):
    """The reasons for which a channel stops."""

    UNREACHABLE = "the other party cannot be reached"
    FOREIGN = "the other end does not speak this protocol"
    VERSION = "the other party speaks another version of the protocol"
    DISAGREEMENT = "the other party runs something else"
    UNTRUSTED = "a certificate is not accepted"
    GONE = "the connection to the other party broke"
    TIMED_OUT = "nothing came from the other party in time"
    ABORTED = "the other party stopped because of a failure of its own"
    FINISHED = "the other party has finished while more was expected of it"
    BUSY = "the other party is at work with somebody else"
    MALFORMED = "what came is not a valid frame"
    OUT_OF_STEP = "the other party is at another step"
    CLOSED = "this channel is closed"
    INTERRUPTED = "an earlier transfer on this channel was interrupted"


_FIXES = {
    Failure.UNREACHABLE: "check the address and that the other party is started",
    Failure.FOREIGN: "check the address, and that both parties use TLS or neither does",
    Failure.VERSION: "install the same version of edgeward at both parties",
    Failure.DISAGREEMENT: "start both parties with the same model, settings and role names",
    Failure.UNTRUSTED: "give the parties valid certificates of one `edgeward secure keys` call, and check the clocks",
    Failure.GONE: "look at the other party's own message, then start the run again",
    Failure.TIMED_OUT: "look whether the other party still works, or allow it more time",
    Failure.ABORTED: "look at the other party's own message",
    Failure.BUSY: "try again when that is done; one server serves one client at a time",
    Failure.MALFORMED: "start the run again; without TLS, check what is between the parties",
}


class ChannelError(EdgewardError):
    """A channel stopped; nothing that came over it since the last complete message may be used.

    No text of this error holds anything that was sent or received.
    """

    exit_code = 1

    def __init__(self, reason: Failure, *, expected: str = "", came: str = "", fix: str = "") -> None:
        """Name the reason, what was expected, what came and what to do."""
        self.reason, self.expected, self.came = reason, expected, came
        fix = fix or _FIXES.get(reason, "start the run again at all parties")
        super().__init__(reason.value, expected=expected, came=came, fix=fix)

    def again(self) -> ChannelError:
        """Return the same error as a new object, for another thread to raise."""
        return ChannelError(self.reason, expected=self.expected, came=self.came)
