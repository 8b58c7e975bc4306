"""`StreamedTuples`, `StoredTuples`: material from a dealer over a channel, ahead of its use, or from a stock alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import final

import numpy as np

from edgeward.backends.mpc.deployment.stock import INDICES, Stock
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.offline.source import TupleSource, supply_of
from edgeward.backends.mpc.offline.tuples import Supply, SupplyError, correction_bytes
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.native.prg import KEY_BYTES

WANT, BATCH, SEED = "want", "batch", "seed"
END = 2**64 - 1
"""In place of an index: the dealer deals no more."""
_GOODBYE_SECONDS = 2.0


def _dealt_again(index: int, last: int) -> SupplyError:
    return SupplyError(
        "the dealer deals a batch for the second time",
        expected=f"an index above {last} and below {INDICES}",
        came=str(index),
        fix="delete the dealer's folder if it was put back from a copy; all stores are then dealt anew",
    )


@final
class StoredTuples(TupleSource):
    """What waits in a stock, and no more."""

    def __init__(self, stock: Stock, plan: Plan, number: int) -> None:
        """Take from `stock`."""
        self._stock, self._plan, self._number = stock, plan, number

    def next_index(self, timeout: float) -> int:
        waiting = self._stock.indices()
        if not waiting:
            raise SupplyError("no batch is left in the store", fix="start a dealer and name it with --dealer")
        return waiting[0]

    def take(self, index: int, timeout: float) -> Supply:
        return supply_of(self._plan.ring, self._number, self._plan.demands, self._stock.take(index))

    def close(self) -> None:
        return


@final
class StreamedTuples(TupleSource):
    """Batches that a dealer sends ahead of their use, at most `ahead` of them waiting.

    A thread receives all the time, so that a dealer that is gone is noticed at once; `failed` is then called with the
    error, once.
    """

    def __init__(
        self,
        channel: Channel,
        stock: Stock,
        plan: Plan,
        number: int,
        *,
        ahead: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Ask for `ahead` batches and begin to receive. The dealer has greeted already."""
        self._channel, self._stock, self._plan, self._number = channel, stock, plan, number
        self._stored, self._failed = StoredTuples(stock, plan, number), failed
        self._changed = threading.Condition()
        self._ended, self._closing = False, False
        self._failure: Exception | None = None
        self._last = max(stock.indices(), default=-1)
        self._want(max(0, ahead - len(stock.indices())))
        self._thread = threading.Thread(target=self._run, name="edgeward-tuples", daemon=True)
        self._thread.start()

    def next_index(self, timeout: float) -> int:
        self.wait_for(1, timeout)
        return self._stock.indices()[0]

    def take(self, index: int, timeout: float) -> Supply:
        supply = self._stored.take(index, timeout)
        self._want(1)
        return supply

    def wait_for(self, count: int, timeout: float) -> None:
        """Return when `count` batches wait. Raises: as `take`, also where the dealer deals no more."""
        self._until(lambda: len(self._stock.indices()) >= count, timeout)

    def close(self) -> None:
        self._closing = True
        try:
            self._channel.send(np.zeros(1, np.uint64), WANT)
            self._thread.join(_GOODBYE_SECONDS)
            if not self._thread.is_alive():
                self._channel.close()
        except ChannelError:
            pass
        self._channel.abort()

    def _want(self, count: int) -> None:
        if count and not self._ended:
            self._channel.send(np.array([count], np.uint64), WANT)

    def _until(self, ready: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        with self._changed:
            while not ready():
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    raise SupplyError("the dealer deals no more", fix="start the dealer with more --batches")
                if (left := end - time.monotonic()) <= 0:
                    raise ChannelError(Failure.TIMED_OUT, expected=f"a batch within {timeout:g} s", came="none")
                # Woken by every batch; the pause only bounds how late an interrupt is seen.
                self._changed.wait(min(left, 0.5))

    def _run(self) -> None:
        try:
            while (index := int(self._channel.receive((1,), np.uint64, BATCH)[0])) != END:
                if not self._last < index < INDICES:
                    raise _dealt_again(index, self._last)
                self._last = index
                self._stock.put(index, self._records())
                with self._changed:
                    self._changed.notify_all()
        except Exception as error:
            # Whatever it is: a thread that ends without a word would leave all parties waiting.
            self._failure = error
            if not self._closing:
                self._failed(error)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _records(self) -> Iterator[bytes]:
        yield self._channel.receive((KEY_BYTES,), np.uint8, SEED).tobytes()
        for place, demand in enumerate(self._plan.demands):
            size = correction_bytes(demand, self._plan.ring, self._number)
            if size:
                yield self._channel.receive((size,), np.uint8, f"material{place}").tobytes()
