"""Mapping rules: convolution, matrix products and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edgeward.graph.call import BATCH_FIRST, Call, NoPlace, Rule

aten = torch.ops.aten


def pair(extent: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of an argument that may be one number or a list of one.

    >>> pair(3), pair([2]), pair([1, 2])
    ((3, 3), (2, 2), (1, 2))
    """
    sizes = [extent] if isinstance(extent, int) else list(extent)
    return (int(sizes[0]), int(sizes[-1]))


def window(call: Call) -> dict[str, Any]:
    """Return the attributes every convolution has."""
    return {
        "stride": pair(call.get("stride", 1)),
        "padding": pair(call.get("padding", 0)),
        "dilation": pair(call.get("dilation", 1)),
        "groups": int(call.get("groups", 1)),
    }


def _conv2d(call: Call) -> str:
    tensors = {"weight": call.stored("weight"), "bias": call.optional("bias")}
    return call.emit("conv2d", (call.image("input"),), window(call), tensors=tensors)


def _conv2d_named_padding(call: Call) -> str:
    weight, bias = call.stored("weight"), call.optional("bias")
    stride, dilation = pair(call.get("stride", 1)), pair(call.get("dilation", 1))
    totals = [d * (k - 1) for d, k in zip(dilation, weight.tensor.shape[2:], strict=True)]
    same = call.arguments["padding"] == "same"
    if same and any(total % 2 for total in totals):
        raise NoPlace("use an odd kernel with padding='same', or pad explicitly with F.pad")
    padding = (totals[0] // 2, totals[1] // 2) if same else (0, 0)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": int(call.get("groups", 1))}
    return call.emit("conv2d", (call.image("input"),), settings, tensors={"weight": weight, "bias": bias})


def _linear(call: Call) -> str:
    tensors = {"weight": call.stored("weight"), "bias": call.optional("bias")}
    return call.emit("linear", (call.value("input"),), tensors=tensors)


def _addmm(call: Call) -> str:
    bias = call.stored("self")
    if call.get("beta", 1) != 1 or call.get("alpha", 1) != 1 or bias.tensor.dim() != 1:
        raise NoPlace("use nn.Linear")
    weight = call.derive(call.stored("mat2").tensor.t(), "weight")
    return call.emit("linear", (call.value("mat1"),), tensors={"weight": weight, "bias": bias})


def _matmul(call: Call) -> str:
    left, right = "self", "other" if "other" in call.arguments else "mat2"
    if call.is_stored(right):
        stored = call.stored(right)
        if stored.tensor.dim() != 2:
            raise NoPlace("multiply by a stored matrix of two axes")
        weight = call.derive(stored.tensor.t(), "weight")
        return call.emit("linear", (call.value(left),), tensors={"weight": weight})
    inputs = (call.value(left), call.value(right))
    ranks = [len(call.shape(value)) for value in inputs]
    if ranks[0] != ranks[1] or ranks[0] < 2:
        raise NoPlace(BATCH_FIRST)
    return call.emit("matmul", inputs)


def _attention(call: Call) -> str:
    if call.get("attn_mask") is not None or call.get("is_causal", False) or call.get("enable_gqa", False):
        raise NoPlace("use attention without a mask and with as many key heads as query heads")
    if call.get("dropout_p", 0.0):
        raise NoPlace("pass dropout_p=0.0 unless self.training: this dropout acts in eval mode too")
    inputs = tuple(call.value(name) for name in ("query", "key", "value"))
    scale = call.get("scale", 1.0 / math.sqrt(call.shape(inputs[0])[-1]))
    return call.emit("attention", inputs, {"scale": float(scale)})


LINEAR: Mapping[Any, Rule] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d_named_padding,
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.scaled_dot_product_attention.default: _attention,
}
