"""Choosing among networks by what they cost under a protocol for secret input and by their utility."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from edgeward.backends.mpc.costs import CostModel, PriceList
from edgeward.core.errors import ConfigError
from edgeward.graph.network import Network


@final
@dataclass(frozen=True)
class Offer:
    """One candidate network: its modelled price, and its utility on validation records (larger is better)."""

    name: str
    price: PriceList
    utility: float


def offers(
    candidates: Mapping[str, Network], utilities: Mapping[str, float], model: CostModel, records: int = 1
) -> tuple[Offer, ...]:
    """Return the candidates that have a utility, the fewest modelled bytes first.

    `candidates` are rewritten networks by name (another backbone, `XOperator`, `WinogradTiles`); `utilities` by the
    same names. Guarantee: none about a run; see `PriceList.basis`. Raises: `UnsupportedOperators`.
    """
    found = [
        Offer(name, model.prices(network, records), utilities[name])
        for name, network in candidates.items()
        if name in utilities
    ]
    return tuple(sorted(found, key=lambda offer: (offer.price.total.bytes, offer.name)))


def choose(found: tuple[Offer, ...], reference: str, tolerance: float) -> Offer:
    """Return the first offer whose utility is at most `tolerance` below that of the one called `reference`.

    Utilities must come from validation records, so that test records can still judge the choice. Raises: `ConfigError`
    when nothing is called `reference`.
    """
    known = {offer.name: offer for offer in found}
    if reference not in known:
        raise ConfigError("no such candidate", expected=", ".join(known), came=reference)
    least = known[reference].utility - tolerance
    return next(offer for offer in found if offer.utility >= least)
