"""Multiply-accumulates of each operator with the bit widths of their operands, and the counts made from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import final

from edgeward.devices import OperatorClass, Precision
from edgeward.graph.network import Network, Node

_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "int32": 32, "int16": 16}

LANE_BITS = 64
"""Width of the machine word that the cpu64 counts assume."""


@final
@dataclass(frozen=True)
class Work:
    """`macs` multiply-accumulates of a `weight_bits`-bit with an `activation_bits`-bit operand, for one record."""

    macs: int
    weight_bits: int
    activation_bits: int
    operator_class: OperatorClass = "conv"

    @property
    def binary(self) -> bool:
        """Whether both operands have one bit, so that a word holds 64 of them."""
        return self.weight_bits == 1 and self.activation_bits == 1

    @property
    def precision(self) -> Precision:
        """The kernel that runs it: binary, int8 (both operands of at most 8 bits) or float32."""
        if self.binary:
            return "binary"
        return "int8" if max(self.weight_bits, self.activation_bits) <= 8 else "float32"


def node_work(network: Network, node: Node) -> Work:
    """Return the multiply-accumulates of `node` for one record; 0 for operators without products of two values.

    conv2d: elements of the output x weights per output channel. linear: elements of the output x input features.
    matmul: elements of the output x shared axis. attention: queries x keys x (key width + value width).
    """
    weight_bits, activation_bits = operand_bits(network, node)
    return Work(_macs(network, node), weight_bits, activation_bits, _operator_class(network, node))


def operand_bits(network: Network, node: Node) -> tuple[int, int]:
    """Return (weight bits, activation bits) of a node; operands of `matmul` and `attention` are both activations."""
    if node.operator.startswith("binary_"):
        return 1, 1
    activation = _BITS.get(network.values[node.inputs[0]].dtype, 8) if node.inputs else 32
    if node.operator.startswith("quantized_"):
        wanted = int(node.attributes["activation_bits"])
        return int(node.attributes["weight_bits"]), wanted if wanted < 32 else activation
    if "weight" in node.tensors:
        return 8 * network.tensor(node, "weight").element_size(), activation
    return activation, activation


def _macs(network: Network, node: Node) -> int:
    output = network.values[node.output]
    base = node.operator.removeprefix("quantized_").removeprefix("binary_")
    if base in ("conv2d", "linear"):
        return output.elements * prod(network.tensor(node, "weight").shape[1:])
    if base == "matmul":
        return output.elements * network.values[node.inputs[0]].shape[-1]
    if base == "attention":
        query, key, value = (network.values[name].shape for name in node.inputs[:3])
        return prod(query[:-1]) * key[-2] * (key[-1] + value[-1])
    return 0


def _operator_class(network: Network, node: Node) -> OperatorClass:
    output = network.values[node.output].shape
    if node.operator.endswith("conv2d"):
        weight = network.tensor(node, "weight").shape
        if weight[1] == 1 and int(node.attributes["groups"]) > 1:
            return "depthwise"
        return "pointwise" if weight[2] == weight[3] == 1 else "conv"
    # several rows share the weights, so that a linear layer runs like a 1x1 convolution
    return "linear" if prod(output[:-1]) == 1 else "pointwise"


def total_macs(work: Iterable[Work]) -> int:
    """Return the sum of all multiply-accumulates."""
    return sum(w.macs for w in work)


def ace(work: Iterable[Work]) -> int:
    """Arithmetic computation effort: sum of MACs x weight bits x activation bits.

    One float32 MAC counts 1024, int8 64, binary 1. The same formula is used for `bit_operations`.
    Source: PokeBNN (arXiv 2112.00133), section 3.

    >>> ace([Work(10, 32, 32), Work(10, 8, 8), Work(10, 1, 1)])
    10890
    """
    return sum(w.macs * w.weight_bits * w.activation_bits for w in work)


def cpu64_classic(work: Iterable[Work]) -> float:
    """Word operations by the convention of the binary-network literature: binary MACs / 64 + all other MACs.

    >>> cpu64_classic([Work(640, 1, 1), Work(10, 8, 8)])
    20.0
    """
    return sum(w.macs / LANE_BITS if w.binary else float(w.macs) for w in work)


def cpu64_lane(work: Iterable[Work]) -> float:
    """Word operations when every operand fills its share of a 64-bit word: sum of MACs x wider operand / 64.

    >>> cpu64_lane([Work(640, 1, 1), Work(16, 4, 8)])
    12.0
    """
    return sum(w.macs * max(w.weight_bits, w.activation_bits) / LANE_BITS for w in work)
