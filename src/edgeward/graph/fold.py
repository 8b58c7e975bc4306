"""Exact rewrites: batch normalisation into the layer before it, and identities away."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeward.graph.network import Network, Node
from edgeward.graph.rewrite import bypass, only_reader, rebuilt, with_folded


def fold_batch_norm(network: Network) -> Network:
    """Fold every batch_norm after a conv2d or linear into that layer's weight and bias.

    W' = W g / sqrt(v + epsilon), b' = (b - m) g / sqrt(v + epsilon) + beta, computed in float64. A batch_norm after a
    quantised or binary layer, or after a layer whose result others read too, stays.

    Guarantee: equal outputs up to float32 rounding. The result no longer accepts `with_tensors`.
    """
    for name in [node.name for node in network.nodes if node.operator == "batch_norm"]:
        norm = network.node(name)
        layer = network.producer(norm.inputs[0])
        if layer is None or not _absorbs(network, layer, norm):
            continue
        weight, bias = _normalised(network, layer, norm)
        changed, tensors = with_folded(layer, weight=weight, bias=bias)
        network = bypass(rebuilt(network, {layer.name: changed}, **tensors), [norm.name])
    return network


def _absorbs(network: Network, layer: Node, norm: Node) -> bool:
    reader = only_reader(network, layer.output)
    if reader is None or reader.name != norm.name:
        return False
    # A linear layer on tokens [T, D] is normalised over T, which is not its channel axis.
    rank = len(network.values[layer.output].shape)
    return (layer.operator, rank) in (("conv2d", 3), ("linear", 1))


def _normalised(network: Network, layer: Node, norm: Node) -> tuple[Tensor, Tensor]:
    gain, shift, mean, variance = (
        network.tensor(norm, role).double() for role in ("weight", "bias", "mean", "variance")
    )
    factor = gain / torch.sqrt(variance + norm.attributes["epsilon"])
    weight = network.tensor(layer, "weight").double()
    bias = network.tensor(layer, "bias").double() if "bias" in layer.tensors else torch.zeros_like(mean)
    scaled = weight * factor.reshape(-1, *([1] * (weight.dim() - 1)))
    return scaled.float(), ((bias - mean) * factor + shift).float()


def remove_identities(network: Network) -> Network:
    """Remove identity nodes and layout nodes that change nothing; outputs keep a node of their own.

    Guarantee: equal outputs, bit for bit.
    """
    for name in [node.name for node in network.nodes]:
        node = network.node(name)
        if _neutral(network, node) and not _needed_output(network, node):
            network = bypass(network, [name])
    return network


def _needed_output(network: Network, node: Node) -> bool:
    """Return whether `node` gives an output that its source, an input or another output, cannot give."""
    source = node.inputs[0]
    return node.output in network.outputs and (source in network.inputs or source in network.outputs)


def _neutral(network: Network, node: Node) -> bool:
    if node.operator == "identity":
        return True
    if node.operator == "reshape":
        return network.values[node.inputs[0]].shape == network.values[node.output].shape
    if node.operator == "permute":
        return tuple(node.attributes["axes"]) == tuple(range(len(node.attributes["axes"])))
    return node.operator == "pad" and not any(map(any, node.attributes["padding"]))
