"""Parameters, nonzeros and stored bytes of a network's tensors, by bit width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import final

import torch
from torch import Tensor

from edgeward.graph.network import CONSTANT, Network, Node
from edgeward.graph.quantized import fake_quantize_weight

_NOT_LEARNED = frozenset({"mean", "variance", "weight_scale", "activation_scale", "activation_zero_point"})


@final
@dataclass(frozen=True)
class Weights:
    """What the tensors of one node, or of a whole network, take.

    `parameters` leaves out running statistics and the constants of quantisers and of the program; `stored_bytes` has
    them all. Each tensor is packed at its own width and rounded up to whole bytes; sparsity does not shrink it.
    """

    parameters: int = 0
    nonzeros: int = 0
    stored_bytes: int = 0
    binary_weights: int = 0
    binary_weight_bytes: int = 0

    def __add__(self, other: Weights) -> Weights:
        """Add field by field."""
        return Weights(
            self.parameters + other.parameters,
            self.nonzeros + other.nonzeros,
            self.stored_bytes + other.stored_bytes,
            self.binary_weights + other.binary_weights,
            self.binary_weight_bytes + other.binary_weight_bytes,
        )


def node_weights(network: Network) -> Mapping[str, Weights]:
    """Return what each node's tensors take; a tensor shared by several nodes counts at the first."""
    seen: set[str] = set()
    found = {}
    for node in network.nodes:
        own = Weights()
        for role, key in node.tensors.items():
            if key not in seen:
                seen.add(key)
                own = own + _tensor(network, node, role)
        found[node.name] = own
    return found


def _tensor(network: Network, node: Node, role: str) -> Weights:
    tensor = network.tensor(node, role)
    count, binary = tensor.numel(), role == "weight" and node.operator.startswith("binary_")
    stored = ceil(count * _stored_bits(node, role, tensor) / 8)
    fixed = role in _NOT_LEARNED or node.tensors[role].startswith(CONSTANT)
    learned = tensor.is_floating_point() and not fixed
    return Weights(
        parameters=count if learned else 0,
        nonzeros=_nonzeros(network, node, role, tensor) if learned else 0,
        stored_bytes=stored,
        binary_weights=count if binary else 0,
        binary_weight_bytes=stored if binary else 0,
    )


def _stored_bits(node: Node, role: str, tensor: Tensor) -> int:
    if role == "weight" and node.operator.startswith("binary_"):
        return 1
    if role == "weight" and node.operator.startswith("quantized_"):
        return int(node.attributes["weight_bits"])
    return 8 * tensor.element_size()


def _nonzeros(network: Network, node: Node, role: str, tensor: Tensor) -> int:
    if role == "weight" and node.operator.startswith("binary_"):
        return tensor.numel()
    if role == "weight" and node.operator.startswith("quantized_"):
        bits = int(node.attributes["weight_bits"])
        if 1 < bits < 32:
            tensor = fake_quantize_weight(tensor, network.tensor(node, "weight_scale"), bits)
    return int(torch.count_nonzero(tensor))
