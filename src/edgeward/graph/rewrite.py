"""Small exact edits of a network that the folds are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from edgeward.graph.network import FOLDED, Network, Node


def folded_key(node: Node, role: str) -> str:
    """Return the key under which a computed tensor of `node` is stored."""
    return f"{FOLDED}{node.name}.{role}"


def with_folded(node: Node, **tensors: Tensor) -> tuple[Node, dict[str, Tensor]]:
    """Return `node` holding computed tensors in the given roles, and those tensors under their keys."""
    keys = {role: folded_key(node, role) for role in tensors}
    return replace(node, tensors={**node.tensors, **keys}), {keys[role]: t.contiguous() for role, t in tensors.items()}


def bypass(network: Network, names: Iterable[str]) -> Network:
    """Remove the nodes called `names`; their readers read each node's first input instead."""
    gone = {node.name: node for node in network.nodes if node.name in set(names)}
    source: dict[str, str] = {}
    kept = []
    for node in network.nodes:
        inputs = tuple(source.get(value, value) for value in node.inputs)
        if node.name in gone:
            source[node.output] = inputs[0]
        else:
            kept.append(replace(node, inputs=inputs))
    outputs = tuple(source.get(value, value) for value in network.outputs)
    return rebuilt(replace(network, nodes=tuple(kept), outputs=outputs))


def rebuilt(network: Network, nodes: Mapping[str, Node] | None = None, **tensors: Tensor) -> Network:
    """Return the network with some nodes replaced by name and tensors added, without what nobody needs any more."""
    kept = tuple((nodes or {}).get(node.name, node) for node in network.nodes)
    held = {key for node in kept for key in node.tensors.values()}
    known = {**network.tensors, **tensors}
    read = {*network.inputs, *(node.output for node in kept)}
    return Network(
        network.inputs,
        network.outputs,
        kept,
        {name: value for name, value in network.values.items() if name in read},
        {key: known[key] for key in known if key in held},
        frozenset(network.parameters & held),
    )


def only_reader(network: Network, value: str) -> Node | None:
    """Return the one node that reads `value`, or None when there are several, none, or it is an output."""
    readers = network.consumers(value)
    return readers[0] if len(readers) == 1 and value not in network.outputs else None
