"""`CostModel`: what every layer of a network costs under one protocol, and the registry of protocols."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from edgeward.backends.mpc.transport.network import Network as Link
from edgeward.core.errors import ConfigError
from edgeward.core.registry import Registry
from edgeward.graph.network import Network


@final
@dataclass(frozen=True)
class LayerPrice:
    """The cost of one layer for a batch, all parties and both directions together.

    `bytes` and `rounds` while the input is there; `offline` bytes from a dealer and `setup` bytes once for the life of
    the weights, where the protocol has such phases. A round is a message, or two that cross, which depends on the one
    before. `macs` is the largest part of the computing, in ring or ciphertext-packed multiply-accumulates of the plain
    layer. Payload only: no frame headers, TLS or TCP.
    """

    name: str
    layer: str
    operator: str
    bytes: int
    rounds: int
    offline: int = 0
    setup: int = 0
    macs: int = 0

    def seconds(self, link: Link, parties: int) -> float:
        """Return the modelled time of the talk: every party sends its part at once; no computing, no pipelining."""
        return link.seconds(self.bytes // parties, self.rounds)


@final
@dataclass(frozen=True)
class PriceList:
    """The layers of a network under one protocol; every number is modelled, `basis` says from what."""

    protocol: str
    basis: str
    parties: int
    rows: tuple[LayerPrice, ...]

    @property
    def total(self) -> LayerPrice:
        """Return the sum of all layers."""
        return _sum("total", "", "", self.rows)

    def by_operator(self) -> dict[str, LayerPrice]:
        """Return the sum per operator, most bytes first."""
        names = {row.operator for row in self.rows}
        sums = [_sum(name, "", name, [row for row in self.rows if row.operator == name]) for name in names]
        return {row.operator: row for row in sorted(sums, key=lambda row: (-row.bytes, row.operator))}

    def seconds(self, link: Link) -> float:
        """Return the modelled time of the talk: every party sends its part at once; no computing, no pipelining."""
        return self.total.seconds(link, self.parties)

    def to_json(self, link: Link | None = None) -> dict[str, Any]:
        """Return rows and sums as plain JSON, with the seconds of talk if a link is given."""

        def plain(row: LayerPrice) -> dict[str, Any]:
            return dict(vars(row)) | ({} if link is None else {"seconds": row.seconds(link, self.parties)})

        return {
            "protocol": self.protocol,
            "basis": self.basis,
            "parties": self.parties,
            "counted": "modelled bytes of all parties, both directions",
            "rows": [plain(row) for row in self.rows],
            "by_operator": {name: plain(row) for name, row in self.by_operator().items()},
            "total": plain(self.total),
        }


class CostModel(ABC):
    """Prices of a network's layers under one protocol; subclasses are final frozen dataclasses of its settings.

    `trust` says who must be trusted for what, `basis` where the closed forms come from.
    """

    slug: ClassVar[str]
    parties: ClassVar[int] = 2
    trust: ClassVar[str]
    basis: ClassVar[str]

    @abstractmethod
    def layers(self, network: Network, records: int) -> Iterable[LayerPrice]:
        """Yield the price of every layer for a batch of `records` inputs."""

    def prices(self, network: Network, records: int = 1) -> PriceList:
        """Return the prices of all layers. Raises: `UnsupportedOperators` naming every layer without a closed form."""
        return PriceList(self.slug, self.basis, self.parties, tuple(self.layers(network, records)))


COST_MODELS: Registry[type[CostModel]] = Registry("protocol")


def check_format(bits: int, fraction: int, least: int, most: int) -> None:
    """Raise `ConfigError` for fixed-point numbers that a protocol does not have."""
    if not least <= bits <= most or not 0 < fraction < bits:
        raise ConfigError(
            "no such fixed-point format",
            expected=f"{least} to {most} bits, binary places below",
            came=f"{bits} bits, {fraction} binary places",
        )


def _sum(name: str, layer: str, operator: str, rows: Iterable[LayerPrice]) -> LayerPrice:
    found = list(rows)
    counts = [sum(getattr(row, key) for row in found) for key in ("bytes", "rounds", "offline", "setup", "macs")]
    return LayerPrice(name, layer, operator, *counts)
