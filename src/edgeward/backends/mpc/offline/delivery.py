"""Material on its way: from the dealer to the parties, over a channel each, before anything secret is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, Entry, Supply
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import SecretBytes
from edgeward.native.prg import KEY_BYTES


def introduce(channel: Channel, dealer: Dealer, number: int) -> None:
    """Send a party its seed (dealer's side). Cost: 32 bytes.

    The channel must be authenticated and encrypted: whoever reads both seeds or one seed and the corrections, and the
    parties' messages, can unmask what they opened.
    """
    if number not in (0, 1):
        raise ConfigError("no such party", expected="0 or 1", came=str(number))
    channel.send(np.frombuffer(dealer.seeds[number].reveal(), np.uint8), "seed")


def introduced(channel: Channel, ring: Ring, number: int) -> Supply:
    """Return this party's empty supply, with the seed that the dealer sends."""
    return Supply(ring, number, SecretBytes(channel.receive((KEY_BYTES,), np.uint8, "seed").tobytes()))


def deliver(channel: Channel, dealer: Dealer, demands: Sequence[Demand], first: Channel | None = None) -> None:
    """Deal `demands` and send the second party its corrections (dealer's side).

    `first` leads to the first party, which is sent what is common to both; where no demand has such a field, it needs
    none. Cost: `Demand.corrections` bytes to each, one message per demand and party where there are any.
    """
    for demand in demands:
        common, entry = dealer.deal(demand)
        channel.send(np.frombuffer(entry.corrections, np.uint8), f"material{entry.index}")
        if common.corrections:
            _needed(first, "first").send(np.frombuffer(common.corrections, np.uint8), f"material{entry.index}")


def accept(channel: Channel | None, supply: Supply, demands: Sequence[Demand]) -> None:
    """Queue the material for `demands`: the second party receives corrections, the first what is common to both.

    May run in a thread of its own, ahead of the protocol that draws. Raises: `ChannelError`.
    """
    for demand in demands:
        place, corrections = supply.received, b""
        size = demand.corrections(supply.ring, supply.number)
        if size or supply.number:
            needed = _needed(channel, "second" if supply.number else "first")
            corrections = needed.receive((size,), np.uint8, f"material{place}").tobytes()
        supply.add(Entry(place, demand, corrections))


def _needed(channel: Channel | None, which: str) -> Channel:
    if channel is None:
        raise ConfigError(f"the {which} party needs a channel to the dealer", fix="give the channel")
    return channel
