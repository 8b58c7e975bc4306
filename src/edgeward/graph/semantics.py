"""What each operator of `OPERATORS` computes, in torch: the meaning every other backend is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeward.graph import quantized
from edgeward.graph.network import Node

Held: TypeAlias = Mapping[str, Tensor]
Step: TypeAlias = "Callable[[Mapping[str, Any], Held, list[Tensor]], Tensor]"


def _conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.conv2d(x[0], held["weight"], held.get("bias"), a["stride"], a["padding"], a["dilation"], a["groups"])


def _quantized_conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.conv2d(
        _rounded_input(a, held, x[0]),
        quantized.fake_quantize_weight(held["weight"], held["weight_scale"], a["weight_bits"]),
        held.get("bias"),
        a["stride"],
        a["padding"],
        a["dilation"],
        a["groups"],
    )


def _quantized_linear(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    weight = quantized.fake_quantize_weight(held["weight"], held["weight_scale"], a["weight_bits"])
    return F.linear(_rounded_input(a, held, x[0]), weight, held.get("bias"))


def _rounded_input(a: Mapping[str, Any], held: Held, x: Tensor) -> Tensor:
    scale, zero_point = held["activation_scale"], held["activation_zero_point"]
    return quantized.fake_quantize_activation(x, scale, zero_point, a["activation_bits"])


def _binary_conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    vertical, horizontal = a["padding"]
    padded = F.pad(quantized.signs(x[0]), (horizontal, horizontal, vertical, vertical), value=-1.0)
    weight = quantized.signs(held["weight"])
    y = F.conv2d(padded, weight, None, a["stride"], 0, a["dilation"], a["groups"]) * held["scale"].view(-1, 1, 1)
    return y + held["bias"].view(-1, 1, 1) if "bias" in held else y


def _binary_linear(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    y = F.linear(quantized.signs(x[0]), quantized.signs(held["weight"])) * held["scale"]
    return y + held["bias"] if "bias" in held else y


def _attention(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    query, key, value = x
    return torch.softmax(query @ key.transpose(-2, -1) * a["scale"], dim=-1) @ value


def _batch_norm(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.batch_norm(
        x[0], held["mean"], held["variance"], held["weight"], held["bias"], training=False, eps=a["epsilon"]
    )


def _arithmetic(function: Callable[[Tensor, Tensor | float], Tensor]) -> Step:
    def step(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
        if len(x) == 2:
            return function(x[0], x[1])
        return function(x[0], held["constant"] if "constant" in held else a["scalar"])

    return step


def _plain(function: Callable[[Tensor], Tensor]) -> Step:
    return lambda a, held, x: function(x[0])


def _max_pool2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.max_pool2d(x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"])


def _avg_pool2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.avg_pool2d(x[0], a["kernel"], a["stride"], a["padding"], a["ceil"], a["count_pad"])


def _mean(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return x[0].mean([axis + 1 for axis in a["axes"]], keepdim=a["keep"])


def _permute(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return x[0].permute(0, *(axis + 1 for axis in a["axes"]))


def _slice(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    place = (*[slice(None)] * (a["axis"] + 1), slice(a["start"], a["stop"], a["step"]))
    return x[0][place]


def _pad(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.pad(x[0], [extent for pair in reversed(a["padding"]) for extent in pair], value=a["value"])


STEPS: Mapping[str, Step] = {
    "conv2d": _conv2d,
    "linear": lambda a, held, x: F.linear(x[0], held["weight"], held.get("bias")),
    "matmul": lambda a, held, x: x[0] @ x[1],
    "attention": _attention,
    "quantized_conv2d": _quantized_conv2d,
    "quantized_linear": _quantized_linear,
    "binary_conv2d": _binary_conv2d,
    "binary_linear": _binary_linear,
    "batch_norm": _batch_norm,
    "layer_norm": lambda a, h, x: F.layer_norm(x[0], a["shape"], h.get("weight"), h.get("bias"), a["epsilon"]),
    "group_norm": lambda a, h, x: F.group_norm(x[0], a["groups"], h.get("weight"), h.get("bias"), a["epsilon"]),
    "relu": _plain(F.relu),
    "clip": lambda a, held, x: x[0].clamp(a["low"], a["high"]),
    "leaky_relu": lambda a, held, x: F.leaky_relu(x[0], a["slope"]),
    "sigmoid": _plain(torch.sigmoid),
    "tanh": _plain(torch.tanh),
    "silu": _plain(F.silu),
    "gelu": lambda a, held, x: F.gelu(x[0], approximate=a["approximate"]),
    "hard_sigmoid": _plain(F.hardsigmoid),
    "hard_swish": _plain(F.hardswish),
    "softmax": lambda a, held, x: torch.softmax(x[0], dim=a["axis"] + 1),
    "add": _arithmetic(torch.add),
    "sub": _arithmetic(torch.sub),
    "mul": _arithmetic(torch.mul),
    "div": _arithmetic(torch.div),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda a, held, x: F.adaptive_avg_pool2d(x[0], a["output"]),
    "mean": _mean,
    "concat": lambda a, held, x: torch.cat(x, dim=a["axis"] + 1),
    "reshape": lambda a, held, x: x[0].reshape(x[0].shape[0], *a["shape"]),
    "permute": _permute,
    "slice": _slice,
    "select": lambda a, held, x: x[0].select(a["axis"] + 1, a["index"]),
    "pad": _pad,
    "identity": lambda a, held, x: x[0],
}


def apply(node: Node, held: Held, inputs: list[Tensor], shape: tuple[int, ...], records: int | torch.SymInt) -> Tensor:
    """Return the result of `node` for a batch.

    Args: `held` its tensors by role, `inputs` its batched inputs, `shape` that of its value per record, `records` the
    size of the batch (a constant has no input to read it from).
    """
    if node.operator == "constant":
        return held["value"].reshape(1, *shape).expand(records, *shape)
    return STEPS[node.operator](node.attributes, held, inputs)
