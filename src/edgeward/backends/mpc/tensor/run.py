"""Plain functions on secret tensors, run by all parties in one process or by one party over its channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.replicated.member import Member
from edgeward.backends.mpc.replicated.neighbours import ChannelNeighbours, run_three
from edgeward.backends.mpc.replicated.schedule import play, rotation
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.tensor.pair import Asked, Pair
from edgeward.backends.mpc.tensor.protocols import Protocols
from edgeward.backends.mpc.tensor.secret import SecretTensor
from edgeward.backends.mpc.tensor.trio import Trio
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.meter import Reading
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError
from edgeward.native.prg import KEY_BYTES

Function = Callable[..., Any]
_SECONDS = 600.0


@final
@dataclass(frozen=True, eq=False)
class Given:
    """An argument of a function on secret tensors: its public shape, its owner, and at the owner its numbers."""

    shape: tuple[int, ...]
    owner: int
    numbers: np.ndarray | None = field(default=None, repr=False)


def given(numbers: Any, owner: int) -> Given:
    """Return an argument that party `owner` brings. `numbers` is anything that NumPy takes as an array."""
    array = np.atleast_1d(np.asarray(numbers, np.float64))
    return Given(tuple(array.shape), owner, array)


@final
@dataclass(frozen=True, eq=False)
class FunctionRun:
    """What a simulated run gave: each party's result, what it sent and was declared to send, the dealer's work."""

    results: tuple[Any, ...] = field(repr=False)
    metered: tuple[Cost, ...]
    declared: tuple[Cost, ...]
    demands: tuple[Demand, ...] = field(repr=False)
    offline_bytes: int = 0

    @property
    def agrees(self) -> bool:
        """Return whether every meter counted what was declared."""
        return self.metered == self.declared

    @property
    def result(self) -> Any:
        """Return the result of the first party that has one."""
        return next((result for result in self.results if result is not None), None)


def evaluate(function: Function, protocols: Protocols, arguments: Sequence[Given]) -> Any:
    """Run `function` as one party: share the arguments, call it with secret tensors, return what it returns.

    Every party calls this with the same function and the same shapes and owners; numbers only at their owner.
    """
    tensors = []
    for argument in arguments:
        mine = argument.owner == protocols.number
        if not 0 <= argument.owner < protocols.parties or (mine and argument.numbers is None):
            owner = f"owner {argument.owner} among {protocols.parties}"
            raise ConfigError("nobody brings this argument", expected="a party's number, and numbers there", came=owner)
        encoded = protocols.ring.encode(argument.numbers) if mine and argument.numbers is not None else None
        tensors.append(SecretTensor(protocols, protocols.enter(encoded, argument.shape, argument.owner)))
    return function(*tensors)


def simulate_function(
    function: Function,
    arguments: Sequence[Given],
    *,
    parties: int = 2,
    ring: Ring | None = None,
    layout: Layout = STANDARD,
    network: Network | None = None,
) -> FunctionRun:
    """Run `function` as all parties on threads of this process; among two, a dealer deals what is asked for.

    Guarantee: none about secrecy: one process holds everything. Results, bytes and rounds are those of a deployment
    against one semi-honest, static party. Raises: what the first failing party raised.
    """
    ring = ring or Ring()
    if parties == 3:
        return _three(function, arguments, ring, layout, network)
    if parties != 2:
        raise ConfigError("no such number of parties", expected="2, or 3 without a dealer", came=str(parties))
    asked = Asked(Dealer(ring))
    sources = asked.sources()

    def party(channel: Channel) -> tuple[Any, Cost, Cost]:
        protocols = Pair(Party(channel.party, ring, channel), sources[channel.party], layout)
        result = evaluate(function, protocols, arguments)
        return result, _counted(channel.meter.reading()), protocols.declared

    both = run_parties(party, party, network=network, timeout=_SECONDS)
    results, metered, declared = zip(*both, strict=True)
    return FunctionRun(results, metered, declared, tuple(asked.demands), asked.offline_bytes)


def rehearsed(
    function: Function, arguments: Sequence[Given], *, ring: Ring | None = None, layout: Layout = STANDARD
) -> tuple[Demand, ...]:
    """Return the material that two parties need for `function`, found by running it on zeros in this process.

    A dealer deals these, and each party then calls `evaluate` with a `Pair` of the same layout on its supply. What a
    function does must not depend on revealed values, or it will ask for something else than was dealt (`SupplyError`).
    """
    zeros = [Given(argument.shape, argument.owner, np.zeros(argument.shape)) for argument in arguments]
    return simulate_function(function, zeros, ring=ring, layout=layout).demands


def _three(
    function: Function, arguments: Sequence[Given], ring: Ring, layout: Layout, network: Network | None
) -> FunctionRun:
    def party(number: int, link: ChannelNeighbours) -> tuple[Any, Cost, list[Any]]:
        protocols = Trio(Member(number, ring, link), layout)
        before = link.meter.reading()
        result = evaluate(function, protocols, arguments)
        return result, _counted(link.meter.reading() - before), protocols.declared

    results, metered, moves = zip(*run_three(party, network=network, timeout=_SECONDS), strict=True)
    declared = play(moves[0], rotation(KEY_BYTES, "seeds"))[1]
    return FunctionRun(results, metered, tuple(map(_counted, declared)), ())


def _counted(reading: Reading) -> Cost:
    return Cost(reading.sent, reading.rounds)
