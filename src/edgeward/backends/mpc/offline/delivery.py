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


def deliver(channel: Channel, dealer: Dealer, demands: Sequence[Demand]) -> None:
    """Deal `demands` and send the second party its corrections (dealer's side).

    Cost: the sum of `offline_bytes`, one message per demand, nothing to the first party.
    """
    for demand in demands:
        _, entry = dealer.deal(demand)
        channel.send(np.frombuffer(entry.corrections, np.uint8), f"material{entry.index}")


def accept(channel: Channel | None, supply: Supply, demands: Sequence[Demand]) -> None:
    """Queue the material for `demands`: the second party receives corrections, the first needs no channel.

    May run in a thread of its own, ahead of the protocol that draws. Raises: `ChannelError`.
    """
    for demand in demands:
        place, corrections = supply.received, b""
        if supply.number:
            if channel is None:
                raise ConfigError("the second party needs a channel to the dealer", fix="give the channel")
            size = demand.offline_bytes(supply.ring)
            corrections = channel.receive((size,), np.uint8, f"material{place}").tobytes()
        supply.add(Entry(place, demand, corrections))
