"""Steps of convolutions, linear layers and what scales channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeward.codegen.step import LOWERINGS, NoIntegerForm, Step, array, shape_of, step
from edgeward.graph.network import Network, Node
from edgeward.graph.quantized import fake_quantize_weight


def _bias(network: Network, node: Node, outputs: int) -> np.ndarray:
    return array(network, node, "bias") if "bias" in node.tensors else np.zeros(outputs)


def _window(node: Node) -> dict[str, Any]:
    (top, left), a = node.attributes["padding"], node.attributes
    settings = {"stride": tuple(a["stride"]), "padding": (top, left, top, left), "dilation": tuple(a["dilation"])}
    return {**settings, "groups": int(a["groups"])}


@LOWERINGS.register("conv2d")
def conv2d(network: Network, node: Node) -> Step:
    """Convolution."""
    weight = array(network, node, "weight")
    return step(node, "conv2d", _window(node), {"weight": weight, "bias": _bias(network, node, len(weight))})


@LOWERINGS.register("linear")
def linear(network: Network, node: Node) -> Step:
    """Linear layer on a vector."""
    if len(shape_of(network, node)) != 1:
        raise NoIntegerForm("flatten to one vector before a linear layer")
    weight = array(network, node, "weight")
    return step(node, "linear", {}, {"weight": weight, "bias": _bias(network, node, len(weight))})


def _rounded(network: Network, node: Node) -> dict[str, np.ndarray]:
    """Return the weight on its own grid, that grid's step, and the bias of a quantised layer."""
    bits = int(node.attributes["weight_bits"])
    if bits > 8:
        raise NoIntegerForm("quantise weights to 8 bits or fewer, or leave the layer in float")
    scale = network.tensor(node, "weight_scale")
    weight = fake_quantize_weight(network.tensor(node, "weight").detach(), scale, bits).double().numpy()
    step_size = np.broadcast_to(scale.double().numpy().reshape(-1), (len(weight),))
    return {"weight": weight, "bias": _bias(network, node, len(weight)), "scale": step_size}


@LOWERINGS.register("quantized_conv2d")
def quantized_conv2d(network: Network, node: Node) -> Step:
    """Convolution that brings the grid of its weights."""
    return step(node, "conv2d", _window(node), _rounded(network, node))


@LOWERINGS.register("quantized_linear")
def quantized_linear(network: Network, node: Node) -> Step:
    """Linear layer that brings the grid of its weights."""
    if len(shape_of(network, node)) != 1:
        raise NoIntegerForm("flatten to one vector before a linear layer")
    return step(node, "linear", {}, _rounded(network, node))


@LOWERINGS.register("batch_norm")
def batch_norm(network: Network, node: Node) -> Step:
    """Batch normalisation that no layer before it could absorb: a gain and a shift per channel."""
    weight, bias, mean, variance = (array(network, node, role) for role in ("weight", "bias", "mean", "variance"))
    gain = weight / np.sqrt(variance + node.attributes["epsilon"])
    return step(node, "affine", {}, {"gain": gain, "shift": bias - mean * gain})
