"""Which operators a compiled runtime calls one by one, and how wide each value lies in memory between the calls."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Literal

from edgeward.graph.network import Network, Node
from edgeward.measure.work import node_work

Call = Literal["compute", "memory", "fused", "alias"]

_ALIAS = frozenset({"reshape", "identity", "constant"})
_FUSABLE = frozenset({"relu", "clip", "leaky_relu", "hard_swish", "hard_sigmoid", "batch_norm"})
# they move or compare elements, so that they can work on the codes of a quantiser that follows
_TRANSPARENT = frozenset({"relu", "clip", "reshape", "identity", "permute", "slice", "select", "max_pool2d", "concat"})
_ITEM_BYTES = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
_WORD = 4


def calls(network: Network) -> Mapping[str, Call]:
    """Return for each node how a runtime treats it.

    "compute": multiply-accumulates. "fused": an element-wise follower of a compute node whose result only it reads.
    "alias": no work at all. "memory": everything else; it reads and writes its values once.
    """
    found: dict[str, Call] = {}
    for node in network.nodes:
        if node.operator in _ALIAS:
            found[node.name] = "alias"
        elif node_work(network, node).macs:
            found[node.name] = "compute"
        else:
            found[node.name] = "fused" if _rides_along(network, node, found) else "memory"
    return found


def _rides_along(network: Network, node: Node, found: Mapping[str, Call]) -> bool:
    if node.operator not in _FUSABLE or not node.inputs:
        return False
    producer = network.producer(node.inputs[0])
    alone = len(network.consumers(node.inputs[0])) == 1 and node.inputs[0] not in network.outputs
    return producer is not None and alone and found[producer.name] in ("compute", "fused")


def value_bytes(network: Network) -> Mapping[str, int]:
    """Return the bytes each value takes per record, with the codes of a quantiser kept only where every reader agrees.

    A value is one byte per element where all its readers quantise it to at most 8 bits (directly, or after operators
    that only move or compare elements), one bit where all of them are binary layers (the network's input: one byte),
    and float32 otherwise: residual sums, averages and outputs stay float32. Packed values fill whole 32-bit words.
    """
    kinds = calls(network)
    bits: dict[str, int] = {}
    for name in [*network.inputs, *(node.output for node in network.nodes)][::-1]:
        own = 8 * _ITEM_BYTES.get(network.values[name].dtype, 4)
        demands = [_demand(node, bits, kinds, own) for node in network.consumers(name)]
        bits[name] = own if name in network.outputs or not demands else min(own, max(demands))
        # whoever calls the network hands over at least bytes
        bits[name] = max(8, bits[name]) if name in network.inputs else bits[name]
    sizes = {}
    for name, width in bits.items():
        size = ceil(network.values[name].elements * width / 8)
        sizes[name] = ceil(size / _WORD) * _WORD if width < 8 else size
    return sizes


def _demand(node: Node, bits: Mapping[str, int], kinds: Mapping[str, Call], own: int) -> int:
    """Return the bits per element that one reader needs."""
    if node.operator.startswith("binary_"):
        return 1
    if node.operator.startswith("quantized_"):
        wanted = int(node.attributes["activation_bits"])
        return own if wanted >= 32 else 8 * ceil(wanted / 8)
    # a normalisation folds into the thresholds of the layer before it, but not through a pooling
    folds = node.operator == "batch_norm" and kinds[node.name] == "fused"
    return bits[node.output] if node.operator in _TRANSPARENT or folds else own
