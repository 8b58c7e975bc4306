"""Several programs on one channel, taking turns: while one waits for the other party, the next one computes.

Source: the pipelines of Wang, Rajat, Annavaram, "MPC-Pipe", arXiv 2209.13643, within a layer and between batches. Their
third, between layers, sends the masked weights of the next layer early; here all are opened once, before any input.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np

from edgeward.backends.mpc.party import Link

T = TypeVar("T")


@runtime_checkable
class Duplex(Link, Protocol):
    """A link that can send now and receive later; `Channel` is one."""

    def send(self, array: np.ndarray, label: str) -> None:
        """Send `array` without waiting for the other party."""

    def receive(self, shape: tuple[int, ...], dtype: np.dtype | type, label: str) -> np.ndarray:
        """Return the array that the other party sent under `label`."""


def interleave(link: Duplex, programs: Sequence[Callable[[Link], T]]) -> list[T]:
    """Run `programs`, each on a lane of `link`, and return their results.

    One runs at a time: after it has sent, the next one has its turn, and it receives when its turn comes again. So the
    messages go in an order that follows from the programs alone; the other party must interleave the same ones.

    Guarantee: the same messages as one program after the other, byte for byte; their order and the time at which they
    leave follow from public sizes. Raises: what the first failing program raised; the others end with it.
    """
    turns, results, errors = _Turns(len(programs)), dict[int, T](), list[BaseException]()

    def run(place: int) -> None:
        try:
            turns.wait(place)
            results[place] = programs[place](_Lane(link, turns, place))
        except _Stopped:
            return
        except BaseException as error:
            errors.append(error)
        finally:
            turns.leave(place, stop=bool(errors))

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(1, len(programs))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(programs))]


class _Stopped(BaseException):
    """Another program failed."""


@final
class _Turns:
    """Whose turn it is, among those that are still running."""

    def __init__(self, count: int) -> None:
        self._changed, self._now, self._running, self._stop = threading.Condition(), 0, [True] * count, False

    def wait(self, place: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._now == place or self._stop)
            if self._stop:
                raise _Stopped

    def give_way(self, place: int) -> None:
        with self._changed:
            self._advance()
        self.wait(place)

    def leave(self, place: int, *, stop: bool) -> None:
        with self._changed:
            self._running[place], self._stop = False, self._stop or stop
            if self._now == place:
                self._advance()
            self._changed.notify_all()

    def _advance(self) -> None:
        count = len(self._running)
        following = [(self._now + step) % count for step in range(1, count + 1)]
        self._now = next((place for place in following if self._running[place]), self._now)
        self._changed.notify_all()


@final
class _Lane:
    """One program's end of the link."""

    def __init__(self, link: Duplex, turns: _Turns, place: int) -> None:
        self._link, self._turns, self._place = link, turns, place

    def exchange(self, array: np.ndarray, label: str) -> np.ndarray:
        return self.exchange_all([array], [label])[0]

    def exchange_all(self, arrays: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
        for array, label in zip(arrays, labels, strict=True):
            self._link.send(array, label)
        self._turns.give_way(self._place)
        return [self._link.receive(a.shape, a.dtype, label) for a, label in zip(arrays, labels, strict=True)]
