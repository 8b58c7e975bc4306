"""Exact rewrite: gain and shift of a layer or group norm move into the linear layers that read it, or stand alone.

A secure network multiplies by a gain with an opening and a truncation; inside the next layer's weights it is free.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgeward.graph.network import Network, Node, Value
from edgeward.graph.rewrite import rebuilt, with_folded

_NORMS = ("layer_norm", "group_norm")


def sink_affines(network: Network) -> Network:
    """Leave every layer norm and group norm without weight and bias.

    Guarantee: equal outputs up to float32 rounding. Where every reader is a linear layer over the normalised axis (a
    `select` or `slice` may stand between), their weights take up gain and shift; else a product and a sum follow.
    """
    for name in [node.name for node in network.nodes if node.operator in _NORMS and "weight" in node.tensors]:
        norm = network.node(name)
        readers = _readers(network, norm.output)
        folds = readers and all(node is not None and node.operator == "linear" for node in readers)
        if norm.operator == "layer_norm" and folds and network.tensor(norm, "weight").dim() == 1:
            network = _sunk(network, norm, [node for node in readers if node is not None])
        else:
            network = _split(network, norm)
    return network


def _readers(network: Network, value: str) -> list[Node | None]:
    """Return who reads `value`, past parts along other axes than the last; None stands for the outside."""
    found: list[Node | None] = [None] if value in network.outputs else []
    last = len(network.values[value].shape) - 1
    for node in network.consumers(value):
        passes = node.operator in ("select", "slice") and node.attributes["axis"] % (last + 1) != last
        found += _readers(network, node.output) if passes else [node]
    return found


def _parts(network: Network, norm: Node) -> tuple[Tensor, Tensor]:
    gain = network.tensor(norm, "weight").double()
    return gain, network.tensor(norm, "bias").double() if "bias" in norm.tensors else torch.zeros_like(gain)


def _sunk(network: Network, norm: Node, readers: list[Node]) -> Network:
    (gain, shift), nodes = _parts(network, norm), {norm.name: replace(norm, tensors={})}
    tensors: dict[str, Tensor] = {}
    for node in readers:
        weight = network.tensor(node, "weight").double()
        bias = weight @ shift + (network.tensor(node, "bias").double() if "bias" in node.tensors else 0)
        nodes[node.name], made = with_folded(node, weight=(weight * gain).float(), bias=bias.float())
        tensors |= made
    return rebuilt(network, nodes, **tensors)


def _split(network: Network, norm: Node) -> Network:
    gain, shift = _parts(network, norm)
    if norm.operator == "group_norm":
        per_channel = (-1, *[1] * (len(network.values[norm.output].shape) - 1))
        gain, shift = gain.reshape(per_channel), shift.reshape(per_channel)
    plain = replace(norm, tensors={}, output=f"{norm.output}:plain")
    scaled = Node(f"{norm.name}:gain", norm.layer, "mul", (plain.output,), f"{norm.output}:gain")
    moved = Node(f"{norm.name}:shift", norm.layer, "add", (scaled.output,), norm.output)
    scaled, first = with_folded(scaled, constant=gain.float())
    moved, second = with_folded(moved, constant=shift.float())
    at = network.nodes.index(norm)
    nodes = (*network.nodes[:at], plain, scaled, moved, *network.nodes[at + 1 :])
    shape = network.values[norm.output].shape
    values = {**network.values, **{name: Value(name, shape) for name in (plain.output, scaled.output)}}
    tensors = {**network.tensors, **first, **second}
    return rebuilt(Network(network.inputs, network.outputs, nodes, values, tensors, network.parameters))
