"""How long the rest of a run takes, told from what its first candidates took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import final


@final
class Pace:
    """Seconds per pass of training, over the candidates measured so far in this run.

    Assumed: a candidate takes time in proportion to the passes it announced. Early stopping makes fewer and
    per-sample gradients make each dearer, so the answer is about right and better with every candidate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Read time, in seconds, from `clock`."""
        self._clock = clock
        self._started = clock()
        self._passes = self._seconds = 0.0

    def start(self) -> None:
        """Begin a candidate."""
        self._started = self._clock()

    def finish(self, passes: float) -> None:
        """End a candidate that was measured and had announced so many passes."""
        self._passes += passes
        self._seconds += self._clock() - self._started

    def left(self, pending: Iterable[float]) -> str:
        """Return about how long the pending passes take; nothing before the first candidate or when none is pending."""
        rest = sum(pending) if self._passes else 0.0
        return f"{about(self._seconds / self._passes * rest)} left" if rest else ""


def about(seconds: float) -> str:
    """Write a duration as coarsely as an estimate deserves.

    >>> about(4), about(47), about(200), about(9000)
    ('about 10 s', 'about 50 s', 'about 3 min', 'about 2.5 h')
    """
    if seconds < 95:
        return f"about {max(10, 10 * round(seconds / 10))} s"
    if seconds < 95 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 1800) / 2:g} h"
