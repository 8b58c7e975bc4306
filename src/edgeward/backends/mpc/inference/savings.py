"""What another operator would save: every proposal is lowered and declared, not estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

from edgeward.backends.mpc.cost import Cost
from edgeward.core.errors import EdgewardError
from edgeward.graph.network import Network, Node

Price: TypeAlias = "Callable[[Network], Cost]"
"""Returns what each party sends, and in how many rounds."""


@final
@dataclass(frozen=True)
class Saving:
    """What goes when all of `operator` (`count` layers) become `instead`: bytes sent by each party, and rounds."""

    operator: str
    instead: str
    count: int
    bytes: int
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return dict(vars(self))


def savings(network: Network, price: Price) -> tuple[Saving, ...]:
    """Return what each exchange of operators that `network` allows would save, alone and all that save together.

    Savings of bytes may be negative where rounds go, and the other way round. The exchanged network is another
    function: train it anew and look at its accuracy. Cost: one lowering per proposal.
    """
    now, found = price(network), list[Saving]()
    single = [(operator,) for operator in _EXCHANGES]
    for operators in (*single, tuple(_EXCHANGES)):
        nodes = [
            _EXCHANGES[node.operator][1](network, node) if node.operator in operators else node
            for node in network.nodes
        ]
        pairs = [(old, new) for old, new in zip(network.nodes, nodes, strict=True) if old is not new]
        names = sorted({old.operator for old, _ in pairs})
        if not pairs or (len(operators) > 1 and len(names) < 2):
            continue
        try:
            then = price(replace(network, nodes=tuple(nodes)))
        except EdgewardError:
            # What stands instead may have no place here, for instance a range that no bits are left for.
            continue
        instead = ", ".join(_EXCHANGES[name][0] for name in names)
        one = Saving(", ".join(names), instead, len(pairs), now.bytes - then.bytes, now.rounds - then.rounds)
        found += [one] if one.bytes > 0 or one.rounds > 0 else []
    return tuple(sorted(found, key=lambda one: -one.bytes))


def _squared(network: Network, node: Node) -> Node:
    return replace(node, operator="mul", inputs=node.inputs * 2, attributes={}, tensors={})


def _rectified(network: Network, node: Node) -> Node:
    return replace(node, operator="relu", attributes={}, tensors={})


def _averaged(network: Network, node: Node) -> Node:
    a = node.attributes
    dilation = a["dilation"]
    if dilation not in (1, (1, 1), [1, 1]):
        return node
    kept = {name: a[name] for name in ("kernel", "stride", "padding", "ceil")}
    return replace(node, operator="avg_pool2d", attributes={**kept, "count_pad": True})


def _left_out(network: Network, node: Node) -> Node:
    return replace(node, operator="identity", attributes={}, tensors={}) if node.output in network.outputs else node


_EXCHANGES: Mapping[str, tuple[str, Callable[[Network, Node], Node]]] = {
    "relu": ("square", _squared),
    "max_pool2d": ("avg_pool2d", _averaged),
    "clip": ("relu", _rectified),
    "gelu": ("relu", _rectified),
    "silu": ("relu", _rectified),
    "hard_swish": ("relu", _rectified),
    "softmax": ("nothing: the client computes it on the answer", _left_out),
    "sigmoid": ("nothing: the client computes it on the answer", _left_out),
}
