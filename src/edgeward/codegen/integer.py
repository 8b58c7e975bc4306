"""`IntegerGraph`: an int8 network in NHWC layout, the one form that the integer reference and the C emitter read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from edgeward.core.errors import ModelError


@final
@dataclass(frozen=True)
class IntegerValue:
    """One edge: int8 with one scale and zero point, real = (q - zero_point) scale.

    Shapes: `shape` is (H, W, C) or (F,) per record; memory order is NHWC.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def bytes(self) -> int:
        """Bytes per record (one per element)."""
        return int(np.prod(self.shape, dtype=np.int64))


@final
@dataclass(frozen=True)
class IntegerNode:
    """One operator of `INTEGER_OPERATORS`: `tensors` maps a role to a key of `IntegerGraph.tensors`."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)


# operator -> (attributes, tensors). `requantise(acc)` below is, in 64-bit arithmetic with floor shifts,
#   clamp(zero_point_out + ((acc * multiplier + 2^(shift - 1)) >> shift), low, high),  multiplier int32, 0 < shift < 63;
# convolutions and linear layers hold one multiplier and shift per output channel. The input's zero point is folded into
# the bias; padding writes the input's zero point. `padding` is (top, left, bottom, right).
INTEGER_OPERATORS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # weight int8 [O, KH, KW, I / groups]; bias, multiplier int32 [O], shift uint8 [O]
    "conv2d": (("stride", "padding", "dilation", "groups", "low", "high"), ("weight", "bias", "multiplier", "shift")),
    # weight int8 [KH, KW, C] (one filter per channel)
    "depthwise": (("stride", "padding", "dilation", "low", "high"), ("weight", "bias", "multiplier", "shift")),
    # weight int8 [O, F]; a flattened (H, W, C) input is read in NHWC order
    "linear": (("low", "high"), ("weight", "bias", "multiplier", "shift")),
    # clamp(z_out + (((a - z_a) m_a + (b - z_b) m_b + 2^(shift - 1)) >> shift), low, high), 32-bit; |m| < 2^21
    "add": (("multiplier_a", "multiplier_b", "shift", "low", "high"), ()),
    # (a - z_a)(b - z_b) requantised; b has a's shape or (1, 1, C)
    "mul": (("multiplier", "shift", "low", "high"), ()),
    "max_pool2d": (("kernel", "stride", "padding"), ()),
    # sum over the window of (x - z_in) requantised; the multiplier holds 1/count; padding only where it counts as zero
    "avg_pool2d": (("kernel", "stride", "padding", "multiplier", "shift", "low", "high"), ()),
    # (H, W, C) -> (C,), sum requantised likewise
    "global_avg_pool": (("multiplier", "shift", "low", "high"), ()),
    # y[i] = table[x[i] + 128]: any unary function (tanh, sigmoid, clip, a change of scale)
    "lookup": ((), ("table",)),
    # every input has the output's scale and zero point (a lookup comes before where it has not); last axis
    "concat": ((), ()),
    # rows and columns at `stride`, channels padded with the zero point: the parameter-free shortcut of CIFAR ResNets
    "shortcut": (("stride", "before", "after"), ()),
    "reshape": (("shape",), ()),
    # index of the largest element (lowest index among equals) as one little-endian int32, shape (4,)
    "argmax": ((), ()),
}


def _problems(node: IntegerNode) -> list[str]:
    if node.operator not in INTEGER_OPERATORS:
        return [f"{node.name} has the unknown operator '{node.operator}'"]
    attributes, tensors = INTEGER_OPERATORS[node.operator]
    wrong = set(attributes) ^ set(node.attributes), set(tensors) ^ set(node.tensors)
    return [f"{node.name} ({node.operator}): '{n}' is missing or foreign" for names in wrong for n in sorted(names)]


@final
@dataclass(frozen=True)
class IntegerGraph:
    """A static int8 network: nodes in execution order, several inputs and outputs allowed."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[IntegerNode, ...]
    values: Mapping[str, IntegerValue]
    tensors: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """Check signatures, order and that every name exists; all problems in one error."""
        known, problems = set(self.inputs), []
        for node in self.nodes:
            problems += _problems(node)
            problems += [f"{node.name} reads {v} before it is written" for v in node.inputs if v not in known]
            problems += [f"{node.name} writes {node.output} again"] if node.output in known else []
            problems += [f"{node.name} lacks tensor {k}" for k in node.tensors.values() if k not in self.tensors]
            known.add(node.output)
        problems += [f"output {v} is never written" for v in self.outputs if v not in known]
        problems += [f"value {v} has no shape" for v in known if v not in self.values]
        if problems:
            raise ModelError("the integer graph is not well formed:\n  " + "\n  ".join(problems))

    def value_of(self, names: Iterable[str]) -> tuple[IntegerValue, ...]:
        """Return the values called `names`."""
        return tuple(self.values[name] for name in names)
