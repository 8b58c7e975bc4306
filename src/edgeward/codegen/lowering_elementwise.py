"""Steps of activations and arithmetic, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgeward.codegen.step import INFINITY, LOWERINGS, NoIntegerForm, Step, array, shape_of, step
from edgeward.graph.network import Network, Node
from edgeward.graph.semantics import STEPS

_LARGEST = float(torch.finfo(torch.float32).max)
_UNARY = ("leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_sigmoid", "hard_swish")


@LOWERINGS.register("relu")
def relu(network: Network, node: Node) -> Step:
    """Rectifier."""
    return step(node, "clamp", low=0.0)


@LOWERINGS.register("clip")
def clip(network: Network, node: Node) -> Step:
    """Rectifier with bounds."""
    low, high = node.attributes["low"], node.attributes["high"]
    return step(node, "clamp", low=-INFINITY if low <= -_LARGEST else low, high=INFINITY if high >= _LARGEST else high)


def _of_torch(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    """Return the operator's meaning as a function of float64 numbers."""

    def function(x: np.ndarray) -> np.ndarray:
        records: Tensor = torch.from_numpy(np.asarray(x, np.float64))
        return np.asarray(STEPS[node.operator](node.attributes, {}, [records]).numpy())

    return function


def _unary(network: Network, node: Node) -> Step:
    return step(node, "unary", {"function": _of_torch(node)})


for _name in _UNARY:
    LOWERINGS.register(_name)(_unary)


def _per_channel(network: Network, node: Node) -> np.ndarray:
    """Return the constant operand as one number per channel."""
    shape = shape_of(network, node)
    constant = array(network, node, "constant") if "constant" in node.tensors else np.float64(node.attributes["scalar"])
    full = np.broadcast_to(constant, (1, *shape) if np.ndim(constant) > len(shape) else shape).reshape(shape)
    flat = full.reshape(shape[0], -1)
    if (flat != flat[:, :1]).any():
        raise NoIntegerForm("use constants that are the same for every pixel of a channel")
    if not np.isfinite(flat).all():
        raise NoIntegerForm("use finite constants")
    return np.array(flat[:, 0])


def _shift(sign: float) -> Callable[[Network, Node], Step]:
    def lower(network: Network, node: Node) -> Step:
        if len(node.inputs) == 1:
            shift = sign * _per_channel(network, node)
            return step(node, "affine", {}, {"gain": np.ones_like(shift), "shift": shift})
        _same_shapes(network, node)
        return step(node, "add", {"signs": (1.0, sign)})

    return lower


LOWERINGS.register("add")(_shift(1.0))
LOWERINGS.register("sub")(_shift(-1.0))


def _same_shapes(network: Network, node: Node) -> None:
    if len({network.values[v].shape for v in node.inputs}) != 1:
        raise NoIntegerForm("add values of one shape; give constants as buffers")


@LOWERINGS.register("mul")
def mul(network: Network, node: Node) -> Step:
    """Product with a constant, or of two values, the second of which may be one number per channel."""
    if len(node.inputs) == 1:
        gain = _per_channel(network, node)
        return step(node, "affine", {}, {"gain": gain, "shift": np.zeros_like(gain)})
    first, second = (network.values[v].shape for v in node.inputs)
    result = step(node, "mul")
    if first == second or (len(first) == 3 and second == (first[0], 1, 1)):
        return result
    if len(second) == 3 and first == (second[0], 1, 1):
        return Step(**{**vars(result), "inputs": node.inputs[::-1]})
    raise NoIntegerForm("multiply values of one shape, or by one value per channel [C, 1, 1]")


@LOWERINGS.register("div")
def div(network: Network, node: Node) -> Step:
    """Division by a constant."""
    if len(node.inputs) == 2:
        raise NoIntegerForm("divide by constants only")
    divisor = _per_channel(network, node)
    if not all(math.isfinite(1 / d) if d else False for d in divisor):
        raise NoIntegerForm("divide by numbers that are not zero")
    return step(node, "affine", {}, {"gain": 1 / divisor, "shift": np.zeros_like(divisor)})
