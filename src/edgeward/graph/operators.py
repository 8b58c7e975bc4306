"""The closed set of operators a `Network` is made of: name -> (attributes, tensor roles, meaning).

A name that ends in "?" is optional. A "constant" tensor broadcasts against the batched value over its trailing axes
(shape [D], [C, 1, 1] or [1, T, D] alike); the "value" of a `constant` node is reshaped to the node's output shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Operator:
    """Signature of one operator. Axes in attributes never count the batch axis."""

    attributes: tuple[str, ...]
    tensors: tuple[str, ...]
    meaning: str

    def violations(self, attributes: Iterable[str], tensors: Iterable[str]) -> list[str]:
        """Return what is missing from, or foreign to, this signature."""
        found = _differences("attribute", self.attributes, set(attributes))
        return found + _differences("tensor", self.tensors, set(tensors))


def _differences(kind: str, declared: tuple[str, ...], given: set[str]) -> list[str]:
    known = {name.rstrip("?") for name in declared}
    required = {name for name in declared if not name.endswith("?")}
    missing = [f"lacks {kind} '{name}'" for name in sorted(required - given)]
    return missing + [f"has no {kind} '{name}'" for name in sorted(given - known)]


OPERATORS: Mapping[str, Operator] = {
    # linear algebra
    "conv2d": Operator(
        ("stride", "padding", "dilation", "groups", "winograd?"),
        ("weight", "bias?"),
        "[C,H,W] cross-correlation; winograd: side of the tiles it may be computed by, which changes no result",
    ),
    "linear": Operator((), ("weight", "bias?"), "x W^T + b over the last axis"),
    "matmul": Operator((), (), "product of two values"),
    "attention": Operator(("scale",), (), "softmax(q k^T scale) v over the last two axes; inputs q, k, v"),
    # quantised forms (inserted by transforms through the custom ops of graph.quantized)
    "quantized_conv2d": Operator(
        ("stride", "padding", "dilation", "groups", "weight_bits", "activation_bits"),
        ("weight", "bias?", "weight_scale", "activation_scale", "activation_zero_point"),
        "conv2d of the fake-quantised input with the fake-quantised weight; activation_bits 32 leaves the input",
    ),
    "quantized_linear": Operator(
        ("weight_bits", "activation_bits"),
        ("weight", "bias?", "weight_scale", "activation_scale", "activation_zero_point"),
        "linear of the fake-quantised input with the fake-quantised weight; activation_bits 32 leaves the input",
    ),
    "binary_conv2d": Operator(
        ("stride", "padding", "dilation", "groups", "unit_scale?"),
        ("weight", "scale", "bias?"),
        "scale[o] * conv2d(sign(x), sign(weight)) + bias; padding pads with -1; sign(0) = +1",
    ),
    "binary_linear": Operator(
        ("unit_scale?",),
        ("weight", "scale", "bias?"),
        "scale[o] * (sign(x) sign(weight)^T) + bias; unit_scale: every scale is 1 and need not be stored",
    ),
    # normalisation
    "batch_norm": Operator(
        ("epsilon",),
        ("weight", "bias", "mean", "variance"),
        "(x - mean) / sqrt(variance + epsilon) * weight + bias, axis 0",
    ),
    "layer_norm": Operator(("epsilon", "shape"), ("weight?", "bias?"), "over the trailing axes `shape`"),
    "group_norm": Operator(("epsilon", "groups"), ("weight?", "bias?"), "per group of channels"),
    # element-wise
    "relu": Operator((), (), "max(x, 0)"),
    "clip": Operator(("low", "high"), (), "min(max(x, low), high); relu6 is clip(0, 6)"),
    "leaky_relu": Operator(("slope",), (), "x if x > 0 else slope x"),
    "sigmoid": Operator((), (), "1 / (1 + exp(-x))"),
    "tanh": Operator((), (), "tanh(x)"),
    "silu": Operator((), (), "x sigmoid(x)"),
    "gelu": Operator(("approximate",), (), "x Phi(x); approximate 'none' or 'tanh'"),
    "hard_sigmoid": Operator((), (), "clip(x/6 + 1/2, 0, 1)"),
    "hard_swish": Operator((), (), "x hard_sigmoid(x)"),
    "softmax": Operator(("axis",), (), "over `axis`"),
    "add": Operator(("scalar?",), ("constant?",), "sum of two values, or a value and a constant or scalar"),
    "sub": Operator(("scalar?",), ("constant?",), "difference"),
    "mul": Operator(("scalar?",), ("constant?",), "product"),
    "div": Operator(("scalar?",), ("constant?",), "quotient"),
    # pooling
    "max_pool2d": Operator(("kernel", "stride", "padding", "dilation", "ceil"), (), "[C,H,W] window maximum"),
    "avg_pool2d": Operator(("kernel", "stride", "padding", "ceil", "count_pad"), (), "[C,H,W] window mean"),
    "adaptive_avg_pool2d": Operator(("output",), (), "mean over near-equal windows; output (1, 1) is global"),
    "mean": Operator(("axes", "keep"), (), "mean over `axes`"),
    # layout
    "concat": Operator(("axis",), (), "along `axis`"),
    "reshape": Operator(("shape",), (), "to `shape` (flatten, view)"),
    "permute": Operator(("axes",), (), "reorder axes"),
    "slice": Operator(("axis", "start", "stop", "step"), (), "a range along `axis`"),
    "select": Operator(("axis", "index"), (), "one index along `axis`, which disappears"),
    "pad": Operator(("padding", "value"), (), "constant padding, (before, after) per axis"),
    "constant": Operator((), ("value",), "a stored tensor (class token), repeated for every record"),
    "identity": Operator((), (), "the value itself"),
}
