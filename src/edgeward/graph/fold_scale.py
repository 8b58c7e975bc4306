"""Exact rewrite: the positive scales of binary layers move into the layer behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeward.graph.network import Network, Node
from edgeward.graph.rewrite import only_reader, rebuilt, with_folded

# f(s x) = s f(x) for every s > 0, channel by channel; the averages only up to rounding.
_SIGN_KEEPING = frozenset({"relu", "leaky_relu", "identity", "max_pool2d", "reshape"})
_AVERAGES = frozenset({"avg_pool2d", "adaptive_avg_pool2d", "mean"})
_BINARY = frozenset({"binary_linear", "binary_conv2d"})


def fold_binary_scales(network: Network) -> Network:
    """Move the per-channel scale of every binary layer through positively homogeneous operators into what follows.

    y = s a + b becomes s (a + b / s); s passes relu, leaky_relu, pooling and flattening, and is absorbed by a
    batch_norm (weight s, mean / s), by the input channels of a linear or conv2d, or by the sign of another binary
    layer - there only without a bias and without averages on the way, whose exact zeros rounding would tip. A layer
    whose scale cannot move (an output, several readers, another operator on the way, a scale that is not positive)
    keeps it. Folded layers have scale 1 and the attribute `unit_scale`.

    Guarantee: equal outputs up to float32 rounding; where a batch_norm lies between two binary layers, the sign of a
    value within rounding of zero may differ. The result no longer accepts `with_tensors`.
    """
    for name in [node.name for node in network.nodes if node.operator in _BINARY]:
        node = network.node(name)
        scale = network.tensor(node, "scale").double()
        if bool((scale > 0).all()) and not node.attributes.get("unit_scale", False):
            network = _moved(network, node, scale)
    return network


def _moved(network: Network, node: Node, scale: Tensor) -> Network:
    rank = len(network.values[node.output].shape)
    if (node.operator, rank) not in (("binary_linear", 1), ("binary_conv2d", 3)):
        return network
    found = _absorber(network, node, scale)
    if found is None:
        return network
    reader, arriving = found
    roles = {"scale": torch.ones_like(scale).float()}
    if "bias" in node.tensors:
        roles["bias"] = (network.tensor(node, "bias").double() / scale).float()
    bare, tensors = with_folded(node, **roles)
    bare = Node(
        bare.name,
        bare.layer,
        bare.operator,
        bare.inputs,
        bare.output,
        {**node.attributes, "unit_scale": True},
        bare.tensors,
    )
    changed, more = with_folded(reader, **_absorbed(network, reader, arriving))
    return rebuilt(network, {node.name: bare, reader.name: changed}, **tensors, **more)


def _absorber(network: Network, node: Node, scale: Tensor) -> tuple[Node, Tensor] | None:
    """Follow the only readers; return the one that can take the scale, and the scale as it arrives there."""
    reader = only_reader(network, node.output)
    exact = "bias" not in node.tensors
    while reader is not None:
        before = network.values[reader.inputs[0]].shape
        after = network.values[reader.output].shape
        if reader.operator in ("batch_norm", "linear", "conv2d", *_BINARY):
            fits = (reader.operator != "linear" or len(before) == 1) and (exact or reader.operator not in _BINARY)
            return (reader, scale) if fits and len(scale) == before[0] else None
        if not _passes(reader, len(after)):
            return None
        if reader.operator == "reshape":
            scale = scale.repeat_interleave(after[0] // len(scale))
        exact = exact and reader.operator in _SIGN_KEEPING
        reader = only_reader(network, reader.output)
    return None


def _passes(node: Node, rank: int) -> bool:
    """Return whether a positive scale per channel passes `node`; `rank` is that of its result."""
    if node.operator == "reshape":
        return rank == 1
    if node.operator == "mean":
        return tuple(node.attributes["axes"]) == (1, 2)
    return node.operator in _SIGN_KEEPING | _AVERAGES


def _absorbed(network: Network, reader: Node, scale: Tensor) -> dict[str, Tensor]:
    """Return the reader's tensors that take up the scale of its input."""
    if reader.operator == "batch_norm":
        weight, mean = (network.tensor(reader, role).double() for role in ("weight", "mean"))
        return {"weight": (weight * scale).float(), "mean": (mean / scale).float()}
    if reader.operator == "linear":
        return {"weight": (network.tensor(reader, "weight").double() * scale).float()}
    if reader.operator == "conv2d":
        weight = network.tensor(reader, "weight").double()
        groups = reader.attributes["groups"]
        # Output channel o of group g reads the input channels of group g only.
        per_group = scale.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        return {"weight": (weight * per_group.reshape(weight.shape[0], -1, 1, 1)).float()}
    return {}
