"""`SecureStep`: what one operator of the secure world computes, by shape alone; the emulator's unit of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, final

from edgeward.backends.tee.deployment import channels_last
from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.graph.network import Network, Node

FREE = frozenset({"reshape", "identity", "constant"})
"""Operators that move nothing in generated code."""

_SLIDING = frozenset({"conv2d", "depthwise", "max_pool2d", "avg_pool2d"})
_ACTIVATIONS = frozenset({"relu", "clip"})
_WINDOWS = {"max_pool2d": "max_pool2d", "avg_pool2d": "avg_pool2d"}
_WHOLE = frozenset({"adaptive_avg_pool2d", "mean"})


@final
@dataclass(frozen=True)
class SecureStep:
    """One operator of `INTEGER_OPERATORS` for one record.

    `macs` are multiply-accumulates (window elements for pools), `depth` the length of one dot product, `pixels`
    output positions, `inputs` and `outputs` elements, `weight_bytes` what it keeps in the blob. `taps` are the
    positions of the secure inputs that must have arrived before it can run.
    """

    name: str
    operator: str
    macs: int
    depth: int
    pixels: int
    inputs: int
    outputs: int
    weight_bytes: int
    taps: frozenset[int]
    window: int = 1
    groups: int = 1
    inside: int = 0
    whole_rows: int = 0
    single_taps: int = 0

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.outputs // self.pixels


def steps_of(secure: IntegerGraph | Network) -> tuple[SecureStep, ...]:
    """Return the steps of a secure world: of its integer graph, or of the float network it will be quantised from.

    A float network gives the steps that quantisation is expected to make of it: batch normalisation and activations
    fold into the layer before, other unary functions become tables.
    """
    needs = _Needs(secure.inputs)
    if isinstance(secure, IntegerGraph):
        steps = [_integer_step(secure, node, needs(node)) for node in secure.nodes]
    else:
        steps = [_float_step(secure, node, needs(node)) for node in secure.nodes]
    return tuple(step for step in steps if step is not None)


@final
class _Needs:
    """Which inputs each value depends on, filled in execution order."""

    def __init__(self, inputs: tuple[str, ...]) -> None:
        self._of = {name: frozenset({position}) for position, name in enumerate(inputs)}

    def __call__(self, node: IntegerNode | Node) -> frozenset[int]:
        found = frozenset().union(*(self._of[value] for value in node.inputs))
        self._of[node.output] = found
        return found


def _integer_step(graph: IntegerGraph, node: IntegerNode, taps: frozenset[int]) -> SecureStep | None:
    if node.operator in FREE:
        return None
    shapes = [graph.values[value].shape for value in node.inputs]
    held = sum(graph.tensors[key].nbytes for key in node.tensors.values())
    weight = tuple(graph.tensors[node.tensors["weight"]].shape) if "weight" in node.tensors else ()
    kernel = {"conv2d": weight[1:3], "depthwise": weight[:2]}.get(node.operator, ())
    depth = {"conv2d": prod(weight[1:]), "depthwise": prod(kernel), "linear": prod(weight[1:])}.get(node.operator, 0)
    return _step(node, node.operator, shapes, graph.values[node.output].shape, depth, kernel, held, taps)


def _float_step(network: Network, node: Node, taps: frozenset[int]) -> SecureStep | None:
    if node.operator in FREE or _absorbed(network, node):
        return None
    kernel: tuple[int, ...] = ()
    operator, depth, held = _lowered(network, node), 0, 0
    if "weight" in node.tensors and operator in ("conv2d", "depthwise", "linear"):
        weight = network.tensor(node, "weight")
        kernel, depth = tuple(weight.shape[2:]), prod(weight.shape[1:])
        # int8 weights; bias and multiplier of 4 bytes and a shift of 1 byte for each output channel
        held = weight.numel() + 9 * weight.shape[0]
    if node.operator == "batch_norm":
        kernel, depth, held = (1, 1), 1, 10 * network.tensor(node, "mean").numel()
    if operator == "lookup":
        held = 256
    shapes = [channels_last(network.values[value].shape) for value in node.inputs]
    output = channels_last(network.values[node.output].shape)
    return _step(node, operator, shapes, output, depth, kernel, held, taps)


def _step(
    node: IntegerNode | Node,
    operator: str,
    inputs: list[tuple[int, ...]],
    output: tuple[int, ...],
    depth: int,
    kernel: tuple[int, ...],
    weight_bytes: int,
    taps: frozenset[int],
) -> SecureStep:
    outputs, read = prod(output), sum(prod(shape) for shape in inputs)
    pixels = prod(output[:2]) if len(output) == 3 else 1
    if operator in ("max_pool2d", "avg_pool2d"):
        kernel = _pair(node.attributes["kernel"])
        depth = prod(kernel)
    if operator == "global_avg_pool":
        kernel = inputs[0][:2]
        depth = prod(kernel)
    groups = int(node.attributes.get("groups", 1)) if operator == "conv2d" else 1
    arguments = node.name, operator, outputs * depth, depth, pixels, read, outputs, weight_bytes, taps
    if operator in ("concat", "shortcut"):
        # one piece per pixel and input, each as many vectors as its channels fill
        widths = [shape[-1] for shape in inputs]
        return SecureStep(*arguments, 1, 1, 0, pixels * len(widths), pixels * int(sum(pieces(n) for n in widths)))
    reads = (
        _coverage(inputs[0], output, kernel, node.attributes)
        if operator in _SLIDING and "stride" in node.attributes
        else (0, 0, 0)
    )
    return SecureStep(*arguments, prod(kernel), groups, *reads)


def pieces(count: float) -> float:
    """Return in how many pieces `count` bytes are copied: of 16, the last one overlapping; of 4 and 1 where fewer.

    >>> pieces(32), pieces(33), pieces(7)
    (2, 3, 4)
    """
    whole, rest = divmod(count, 16)
    return whole + bool(rest) if whole else rest // 4 + rest % 4


def _coverage(
    image: tuple[int, ...], output: tuple[int, ...], kernel: tuple[int, ...], attributes: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Return (pixels inside, kernel rows read whole, kernel positions read one by one) of a sliding window."""
    stride, dilation = _pair(attributes["stride"]), _pair(attributes.get("dilation", 1))
    padding = _pair(attributes["padding"])
    # along each axis, for each output position: how many of the kernel's positions lie in the image
    covered = [
        [sum(0 <= start * s - pad + i * d < extent for i in range(k)) for start in range(count)]
        for s, pad, d, k, extent, count in zip(stride, padding, dilation, kernel, image[:2], output[:2], strict=False)
    ]
    whole_columns = sum(count == kernel[1] for count in covered[1])
    rows = sum(covered[0])
    whole = whole_columns * rows if dilation[1] == 1 else 0
    inside = whole_columns * sum(count == kernel[0] for count in covered[0])
    return inside, whole, (kernel[0] * len(covered[0]) * len(covered[1]) - whole) * kernel[1]


def _lowered(network: Network, node: Node) -> str:
    """Return the integer operator that a float one becomes."""
    kind = node.operator.removeprefix("quantized_").removeprefix("binary_")
    if kind == "conv2d":
        weight = network.tensor(node, "weight")
        return "depthwise" if weight.shape[1] == 1 and int(node.attributes["groups"]) > 1 else "conv2d"
    if kind == "batch_norm":
        return "depthwise"
    if kind in _WHOLE:
        return "global_avg_pool"
    if kind in _WINDOWS:
        return _WINDOWS[kind]
    if kind in ("linear", "concat"):
        return kind
    if kind in ("add", "sub", "mul") and len(node.inputs) == 2:
        return "mul" if kind == "mul" else "add"
    return "shortcut" if kind in ("slice", "pad", "select") else "lookup"


def _absorbed(network: Network, node: Node) -> bool:
    """Return whether a batch normalisation or an activation folds into the operator whose result only it reads."""
    if node.operator not in (_ACTIVATIONS | {"batch_norm"}) or len(network.consumers(node.inputs[0])) != 1:
        return False
    producer = network.producer(node.inputs[0])
    if producer is None:
        return False
    kinds = {"conv2d", "depthwise", "linear", "add", "mul", "avg_pool2d", "global_avg_pool"}
    return _lowered(network, producer) in kinds if not _absorbed(network, producer) else True


def _pair(kernel: Any) -> tuple[int, ...]:
    return tuple(kernel[:2]) if isinstance(kernel, (tuple, list)) else (kernel, kernel)
