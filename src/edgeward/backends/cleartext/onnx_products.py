"""ONNX rules for linear algebra: float, quantised (QDQ) and binary layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from edgeward.backends.cleartext.onnx_draft import OnnxDraft
from edgeward.graph.network import Node
from edgeward.graph.quantized import BIAS_STEPS

OnnxRule: TypeAlias = "Callable[[OnnxDraft, Node], str]"


def _convolve(draft: OnnxDraft, node: Node, x: str, weight: str, padding: tuple[int, int], bias: bool = True) -> str:
    a = node.attributes
    inputs = [x, weight, draft.tensor(node, "bias")] if bias and "bias" in node.tensors else [x, weight]
    return draft.emit(
        "Conv",
        inputs,
        strides=list(a["stride"]),
        pads=[*padding, *padding],
        dilations=list(a["dilation"]),
        group=int(a["groups"]),
        kernel_shape=list(draft.network.tensor(node, "weight").shape[2:]),
    )


def _conv2d(draft: OnnxDraft, node: Node) -> str:
    return _convolve(draft, node, draft.inputs(node)[0], draft.tensor(node, "weight"), node.attributes["padding"])


def _multiply(draft: OnnxDraft, node: Node, x: str, weight: str, bias: bool = True) -> str:
    """x W^T + b; `weight` is stored [O, I]."""
    biased = bias and "bias" in node.tensors
    if len(draft.shape(node.inputs[0])) == 1:
        return draft.emit("Gemm", [x, weight, *([draft.tensor(node, "bias")] if biased else [])], transB=1)
    y = draft.emit("MatMul", [x, draft.emit("Transpose", [weight], perm=[1, 0])])
    return draft.emit("Add", [y, draft.tensor(node, "bias")]) if biased else y


def _linear(draft: OnnxDraft, node: Node) -> str:
    return _multiply(draft, node, draft.inputs(node)[0], draft.tensor(node, "weight"))


def refusals(node: Node, zero_point: float) -> list[str]:
    """Return why a quantised layer has no place in ONNX."""
    bits, levels, reasons = int(node.attributes["weight_bits"]), int(node.attributes["activation_bits"]), []
    if bits not in (4, 8):
        reasons.append(f"{node.name}: ONNX stores weights of 4 or 8 bits, not {bits}")
    if levels != 32 and not 1 <= levels <= 8:
        reasons.append(f"{node.name}: ONNX rounds activations to at most 8 bits here, not {levels}")
    if levels != 32 and not (zero_point.is_integer() and 0 <= zero_point <= 255):
        reasons.append(f"{node.name}: the zero point {zero_point:g} is no integer of 8 bits")
    return reasons


def _rounded_weight(draft: OnnxDraft, node: Node) -> str:
    """Weights as int8 or int4 with one scale per output, dequantised in the graph."""
    bits, key = int(node.attributes["weight_bits"]), node.tensors["weight"]
    scale, weight = draft.array(node, "weight_scale").reshape(-1), draft.array(node, "weight")
    top = 2 ** (bits - 1) - 1
    per_channel = scale.reshape(-1, *([1] * (weight.ndim - 1)))
    integers = np.clip(np.round(weight / per_channel), -top, top).astype(np.int8)
    name = f"{key}:int{bits}"
    stored = draft.store(integers, name) if bits == 8 else draft.store_int4(integers, name)
    return draft.emit("DequantizeLinear", [stored, draft.store(scale, f"{key}:scale")], axis=0)


def _rounded_input(draft: OnnxDraft, node: Node) -> str:
    x, bits = draft.inputs(node)[0], int(node.attributes["activation_bits"])
    if bits == 32:
        return x
    step = np.float32(draft.array(node, "activation_scale").reshape(-1)[0])
    zero_point = np.uint8(draft.array(node, "activation_zero_point").reshape(-1)[0])
    if bits < 8:
        bounds = (np.float32(0) - zero_point) * step, (np.float32(2**bits - 1) - zero_point) * step
        x = draft.emit("Clip", [x, *(draft.number(float(bound)) for bound in bounds)])
    grid = [draft.number(float(step)), draft.store(np.array(zero_point, np.uint8))]
    return draft.emit("DequantizeLinear", [draft.emit("QuantizeLinear", [x, *grid]), *grid])


def _bearable(draft: OnnxDraft, node: Node) -> bool:
    """Return whether the bias stays within 32 bits on the grid of the products, onto which ONNX Runtime rounds it."""
    if "bias" not in node.tensors or int(node.attributes["activation_bits"]) == 32:
        return True
    steps = draft.array(node, "weight_scale").astype(np.float64) * draft.array(node, "activation_scale")
    return bool((np.abs(draft.array(node, "bias")) <= 2 * BIAS_STEPS * steps.reshape(-1)).all())


def _quantized_conv2d(draft: OnnxDraft, node: Node) -> str:
    x, bearable = _rounded_input(draft, node), _bearable(draft, node)
    y = _convolve(draft, node, x, _rounded_weight(draft, node), node.attributes["padding"], bias=bearable)
    return y if bearable else draft.emit("Add", [y, draft.store(draft.array(node, "bias").reshape(-1, 1, 1))])


def _quantized_linear(draft: OnnxDraft, node: Node) -> str:
    x, bearable = _rounded_input(draft, node), _bearable(draft, node)
    y = _multiply(draft, node, x, _rounded_weight(draft, node), bias=bearable)
    return y if bearable else draft.emit("Add", [y, draft.tensor(node, "bias")])


def _signs(draft: OnnxDraft, x: str) -> str:
    return draft.emit(
        "Where", [draft.emit("GreaterOrEqual", [x, draft.number(0.0)]), draft.number(1.0), draft.number(-1.0)]
    )


def _sign_weight(draft: OnnxDraft, node: Node) -> str:
    weight = np.where(draft.array(node, "weight") >= 0, np.int8(1), np.int8(-1))
    stored = draft.store(weight, f"{node.tensors['weight']}:sign")
    return draft.emit("DequantizeLinear", [stored, draft.number(1.0)])


def _scaled(draft: OnnxDraft, node: Node, y: str, shape: tuple[int, ...]) -> str:
    """scale[o] y + bias[o]; products of signs are exact, so the scale is applied after them as in the reference."""
    scale = draft.array(node, "scale").reshape(shape)
    if not bool((scale == 1).all()):
        y = draft.emit("Mul", [y, draft.store(scale, f"{node.tensors['scale']}:{len(shape)}")])
    if "bias" in node.tensors:
        bias = draft.array(node, "bias").reshape(shape)
        y = draft.emit("Add", [y, draft.store(bias, f"{node.tensors['bias']}:{len(shape)}")])
    return y


def _binary_conv2d(draft: OnnxDraft, node: Node) -> str:
    x, (vertical, horizontal) = _signs(draft, draft.inputs(node)[0]), node.attributes["padding"]
    if vertical or horizontal:
        pads = draft.integers(0, 0, vertical, horizontal, 0, 0, vertical, horizontal)
        x = draft.emit("Pad", [x, pads, draft.number(-1.0)])
    y = _convolve(draft, node, x, _sign_weight(draft, node), (0, 0), bias=False)
    return _scaled(draft, node, y, (-1, 1, 1))


def _binary_linear(draft: OnnxDraft, node: Node) -> str:
    x = _signs(draft, draft.inputs(node)[0])
    return _scaled(draft, node, _multiply(draft, node, x, _sign_weight(draft, node), bias=False), (-1,))


def _attention(draft: OnnxDraft, node: Node) -> str:
    query, key, value = draft.inputs(node)
    rank = len(draft.shape(node.inputs[1])) + 1
    turned = draft.emit("Transpose", [key], perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = draft.emit("Mul", [draft.emit("MatMul", [query, turned]), draft.number(node.attributes["scale"])])
    return draft.emit("MatMul", [draft.emit("Softmax", [scores], axis=-1), value])


ONNX_PRODUCTS: Mapping[str, OnnxRule] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "quantized_conv2d": _quantized_conv2d,
    "quantized_linear": _quantized_linear,
    "binary_conv2d": _binary_conv2d,
    "binary_linear": _binary_linear,
    "matmul": lambda draft, node: draft.emit("MatMul", draft.inputs(node)),
    "attention": _attention,
}
