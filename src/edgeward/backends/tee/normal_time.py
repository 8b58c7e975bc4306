"""When the normal world has computed each tap: a roofline per operator on the device's normal processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import final

from edgeward.devices import Basis, DeviceProfile, Figure, OperatorClass, Precision, weakest
from edgeward.graph.network import Network, Node

_ALIAS = frozenset({"reshape", "identity", "constant"})
_FUSABLE = frozenset({"relu", "clip", "leaky_relu", "hard_swish", "hard_sigmoid", "batch_norm"})
_BYTES: Mapping[Precision, float] = {"float32": 4, "int8": 1, "binary": 0.125}


@final
@dataclass(frozen=True)
class NormalTime:
    """Seconds of each node of a network in the normal world, the seconds after which each value is there, and the
    basis; `calls` is how much of the time to each value is the overhead of calling operators.
    """

    seconds: Mapping[str, float]
    ready: Mapping[str, float]
    basis: Basis
    calls: Mapping[str, float] = field(default_factory=dict)

    @property
    def all_calls(self) -> float:
        """Seconds of calling operators in one inference."""
        return max(self.calls.values(), default=0.0)

    @property
    def total(self) -> float:
        """Seconds of one inference."""
        return sum(self.seconds.values())


def normal_time(network: Network, device: DeviceProfile, precision: Precision = "float32") -> NormalTime:
    """Predict the seconds of one inference of `network` on one core of the normal world, node by node.

    A called operator takes max(MACs / rate, bytes / bandwidth) + overhead; activations and batch normalisation behind a
    layer are fused, reshapes free. Guarantee: modelled, within the profile's `band` (assumed).
    """
    used: list[Figure] = [device.bytes_per_second, device.op_overhead_seconds]
    seconds, ready, clock = {}, dict.fromkeys(network.inputs, 0.0), 0.0
    calls, called = dict.fromkeys(network.inputs, 0.0), 0.0
    for node in network.nodes:
        took = 0.0
        if not (node.operator in _ALIAS or _fused(network, node)):
            took = _bytes(network, node, precision) / device.bytes_per_second.value
            macs = node_macs(network, node)
            if macs:
                rate = device.rate(precision, _operator_class(network, node))
                used.append(rate)
                took = max(took, macs / rate.value)
            took += device.op_overhead_seconds.value
            called += device.op_overhead_seconds.value
        clock += took
        seconds[node.name], ready[node.output], calls[node.output] = took, clock, called
    return NormalTime(seconds, ready, weakest(used), calls)


def node_macs(network: Network, node: Node) -> int:
    """Return the multiply-accumulates of a node for one record; 0 for operators without products of two values."""
    output = network.values[node.output].elements
    if "weight" in node.tensors and node.operator.endswith(("conv2d", "linear")):
        return output * prod(network.tensor(node, "weight").shape[1:])
    if node.operator == "matmul":
        return output * network.values[node.inputs[0]].shape[-1]
    if node.operator == "attention":
        query, key, value = (network.values[name].shape for name in node.inputs[:3])
        return prod(query[:-1]) * key[-2] * (key[-1] + value[-1])
    return 0


def _operator_class(network: Network, node: Node) -> OperatorClass:
    if not node.operator.endswith("conv2d"):
        return "linear" if node.operator.endswith("linear") else "pointwise"
    weight = network.tensor(node, "weight").shape
    if weight[1] == 1 and int(node.attributes["groups"]) > 1:
        return "depthwise"
    return "pointwise" if weight[2] == weight[3] == 1 else "conv"


def _fused(network: Network, node: Node) -> bool:
    producer = network.producer(node.inputs[0]) if node.inputs else None
    if node.operator not in _FUSABLE or producer is None or len(network.consumers(node.inputs[0])) != 1:
        return False
    return node_macs(network, producer) > 0 or _fused(network, producer)


def _bytes(network: Network, node: Node, precision: Precision) -> float:
    moved = network.values[node.output].elements + sum(network.values[name].elements for name in set(node.inputs))
    weights = sum(network.tensor(node, role).numel() for role in node.tensors)
    return _BYTES[precision] * (moved + weights)
