"""Mapping rules: the custom operators of quantised and binary layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import edgeward.graph.quantized  # noqa: F401  registers torch.ops.edgeward
from edgeward.graph.call import Call, Rule, Stored
from edgeward.graph.mapping_linear import window

_ROLES = ("weight", "weight_scale", "activation_scale", "activation_zero_point")


def _binary_tensors(call: Call) -> dict[str, Stored | None]:
    return {"weight": call.stored("weight"), "scale": call.stored("scale"), "bias": call.optional("bias")}


def _quantized_tensors(call: Call) -> dict[str, Stored | None]:
    return {**{role: call.stored(role) for role in _ROLES}, "bias": call.optional("bias")}


def _bits(call: Call) -> dict[str, int]:
    return {name: int(call.arguments[name]) for name in ("weight_bits", "activation_bits")}


def _binary_linear(call: Call) -> str:
    return call.emit("binary_linear", (call.value("x"),), tensors=_binary_tensors(call))


def _binary_conv2d(call: Call) -> str:
    return call.emit("binary_conv2d", (call.image("x"),), window(call), tensors=_binary_tensors(call))


def _quantized_linear(call: Call) -> str:
    return call.emit("quantized_linear", (call.value("x"),), _bits(call), tensors=_quantized_tensors(call))


def _quantized_conv2d(call: Call) -> str:
    settings = {**window(call), **_bits(call)}
    return call.emit("quantized_conv2d", (call.image("x"),), settings, tensors=_quantized_tensors(call))


QUANTIZED: Mapping[Any, Rule] = {
    torch.ops.edgeward.binary_linear.default: _binary_linear,
    torch.ops.edgeward.binary_conv2d.default: _binary_conv2d,
    torch.ops.edgeward.quantized_linear.default: _quantized_linear,
    torch.ops.edgeward.quantized_conv2d.default: _quantized_conv2d,
}
