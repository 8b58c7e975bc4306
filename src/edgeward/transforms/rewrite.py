"""`Rewrite`: a frozen setting that changes how a captured network is computed, not what it computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from edgeward.core.errors import ConfigError
from edgeward.core.registry import Registry
from edgeward.graph.network import Network, Node


class Rewrite(ABC):
    """A change of a graph that every backend may ignore; subclasses are final frozen dataclasses."""

    slug: ClassVar[str]

    @abstractmethod
    def apply(self, network: Network) -> Network:
        """Return the rewritten network: the same function in exact arithmetic, the same names and tensors."""


REWRITES: Registry[type[Rewrite]] = Registry("rewrite")


@REWRITES.register("winograd")
@final
@dataclass(frozen=True)
class WinogradTiles(Rewrite):
    """Let convolutions of 3x3 windows, stride and dilation 1 and no groups be computed by tiles of `tile` squared.

    Worth it where products are paid for: 4 products per result and channel with tile 2, 2.25 with tile 4, 9 without.
    Guarantee: the function stays; a backend that computes by tiles says what it rounds. Layers whose results are
    smaller than a tile stay direct. Source: Lavin and Gray, CVPR 2016, section 4.
    """

    slug: ClassVar[str] = "winograd"

    tile: int = 2

    def __post_init__(self) -> None:
        """Refuse tiles without known transforms."""
        if self.tile not in (2, 4):
            raise ConfigError("no such tile", expected="2 or 4", came=str(self.tile))

    def apply(self, network: Network) -> Network:
        nodes = tuple(
            replace(node, attributes={**node.attributes, "winograd": self.tile}) if self._fits(network, node) else node
            for node in network.nodes
        )
        return replace(network, nodes=nodes)

    def _fits(self, network: Network, node: Node) -> bool:
        if node.operator != "conv2d" or not tileable(node.attributes, network.tensor(node, "weight").shape[2:]):
            return False
        return min(network.values[node.output].shape[1:]) >= self.tile


def tileable(attributes: Mapping[str, Any], kernel: tuple[int, ...]) -> bool:
    """Return whether a convolution has a 3x3 window, stride 1, dilation 1 and no groups."""
    steps = [tuple(attributes[name]) for name in ("stride", "dilation")]
    return tuple(kernel) == (3, 3) and steps == [(1, 1), (1, 1)] and int(attributes["groups"]) == 1
