"""`StreamedTuples`, `StoredTuples`: material from a dealer over a channel, ahead of its use, or from a stock alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import final

import numpy as np

from edgeward.backends.mpc.deployment.stock import Stock
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.offline.source import TupleSource, supply_of
from edgeward.backends.mpc.offline.tuples import Supply, SupplyError, correction_bytes
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.core.errors import ConfigError, EdgewardError
from edgeward.native.prg import KEY_BYTES

WANT, BATCH, SEED = "want", "batch", "seed"
END = 2**64 - 1
"""In place of an index: the dealer deals no more."""
_GOODBYE_SECONDS = 2.0


@final
class StoredTuples(TupleSource):
    """What waits in a stock, and no more."""

    def __init__(self, stock: Stock, plan: Plan, number: int) -> None:
        """Take from `stock`."""
        self._stock, self._plan, self._number = stock, plan, number

    def next_index(self, timeout: float, least: int = 0) -> int:
        waiting = [index for index in self._stock.indices() if index >= least]
        if not waiting:
            raise SupplyError("no batch is left in the store", fix="start a dealer and name it with --dealer")
        return waiting[0]

    def take(self, index: int, timeout: float) -> Supply:
        self._stock.drop_before(index)
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
        failed: Callable[[EdgewardError], None],
    ) -> None:
        """Ask for `ahead` batches and begin to receive. The dealer has greeted already."""
        if not 1 <= ahead < 1 << 16:
            raise ConfigError("no such number of batches ahead", expected="1 to 65535", came=str(ahead))
        self._channel, self._stock, self._plan, self._number = channel, stock, plan, number
        self._stored, self._failed = StoredTuples(stock, plan, number), failed
        self._changed = threading.Condition()
        self._ended, self._closing = False, False
        self._failure: EdgewardError | None = None
        self._want(max(0, ahead - len(stock.indices())))
        self._thread = threading.Thread(target=self._run, name="edgeward-tuples", daemon=True)
        self._thread.start()

    def next_index(self, timeout: float, least: int = 0) -> int:
        return self._wait(least, timeout)

    def take(self, index: int, timeout: float) -> Supply:
        found = self._wait(index, timeout)
        if found != index:
            raise SupplyError("a batch is missing", expected=f"batch {index}", came=f"batch {found}", fix="deal anew")
        before = len(self._stock.indices())
        supply = self._stored.take(index, timeout)
        self._want(before - len(self._stock.indices()))
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

    def _wait(self, least: int, timeout: float) -> int:
        """Return the lowest index from `least` on, when there is one."""
        self._until(lambda: any(i >= least for i in self._stock.indices()), timeout)
        return next(i for i in self._stock.indices() if i >= least)

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
                self._stock.put(index, self._records())
                with self._changed:
                    self._changed.notify_all()
        except EdgewardError as error:
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
