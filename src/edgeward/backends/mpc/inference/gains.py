"""Exact rewrites: a gain per channel moves into the convolution after it, so that it costs no opening of its own.

A secure network multiplies by weights with an opening and a truncation, and adds for nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgeward.graph.network import Network, Node
from edgeward.graph.rewrite import bypass, only_reader, rebuilt, with_folded

# Outside, what is added before the rectifier would leave the fixed-point range or drown the value.
_LEAST_GAIN, _LARGEST_SHIFT = 2.0**-6, 2.0**9


def sink_gains(network: Network) -> Network:
    """Turn a depthwise 1x1 convolution g x + s whose one reader is a convolution into x + s / g, and scale the reader.

    Standardised inputs are the usual case. Guarantee: equal outputs up to float32 rounding, padding included. Gains of
    0 stay where they are, so the result tells whether there are any.
    """
    for name in [node.name for node in network.nodes if node.operator == "conv2d"]:
        first = network.node(name)
        second = only_reader(network, first.output)
        if second is not None and second.operator == "conv2d" and _is_gain(network, first):
            gain = network.tensor(first, "weight").double().reshape(-1)
            shift = network.tensor(first, "bias").double() if "bias" in first.tensors else None
            network = _sunk(network, first, gain, shift, second)
    return network


def sink_norms(network: Network) -> Network:
    """Do the same for batch_norm, relu, conv2d in a row, since relu(g x + s) = g relu(x + s / g) for g > 0.

    Networks that normalise before they convolve (DenseNet) need it. Guarantee: equal outputs up to float32 rounding.
    A layer with a gain below 2^-6 or a shift s / g above 2^9 stays as it is, so the result tells which layers have one.
    """
    for name in [node.name for node in network.nodes if node.operator == "batch_norm"]:
        norm = network.node(name)
        middle = only_reader(network, norm.output)
        last = only_reader(network, middle.output) if middle is not None and middle.operator == "relu" else None
        if last is None or last.operator != "conv2d":
            continue
        scale, bias, mean, variance = (
            network.tensor(norm, role).double() for role in ("weight", "bias", "mean", "variance")
        )
        gain = scale / torch.sqrt(variance + norm.attributes["epsilon"])
        shift = bias - mean * gain
        if bool((gain >= _LEAST_GAIN).all()) and bool((shift.abs() <= _LARGEST_SHIFT * gain).all()):
            network = _sunk(network, norm, gain, shift, last)
    return network


def _sunk(network: Network, first: Node, gain: Tensor, shift: Tensor | None, second: Node) -> Network:
    """Make `first` add shift / gain, or nothing, and multiply the weights of the convolution `second` by the gain."""
    scaled, tensors = with_folded(second, weight=_scaled(network.tensor(second, "weight"), gain, second))
    if shift is None:
        return bypass(rebuilt(network, {second.name: scaled}, **tensors), [first.name])
    plain = replace(first, operator="add", attributes={}, tensors={})
    added, more = with_folded(plain, constant=(shift / gain).float().reshape(-1, 1, 1))
    return rebuilt(network, {second.name: scaled, first.name: added}, **tensors, **more)


def _is_gain(network: Network, node: Node) -> bool:
    weight, a = network.tensor(node, "weight"), node.attributes
    plain = tuple(a["stride"]) == (1, 1) and not any(a["padding"])
    return plain and tuple(weight.shape) == (a["groups"], 1, 1, 1) and bool((weight != 0).all())


def _scaled(weight: Tensor, gain: Tensor, node: Node) -> Tensor:
    groups = node.attributes["groups"]
    by_input = gain.reshape(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return torch.mul(weight.double(), by_input[:, :, None, None]).float()
