"""ONNX rules for normalisation, activations, pooling and layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeward.backends.cleartext.onnx_draft import OnnxDraft
from edgeward.backends.cleartext.onnx_products import ONNX_PRODUCTS, OnnxRule
from edgeward.graph.network import Node


def _plain(operator: str, **attributes: Any) -> OnnxRule:
    return lambda draft, node: draft.emit(operator, draft.inputs(node), **attributes)


def _batch_norm(draft: OnnxDraft, node: Node) -> str:
    roles = [draft.tensor(node, role) for role in ("weight", "bias", "mean", "variance")]
    return draft.emit("BatchNormalization", [*draft.inputs(node), *roles], epsilon=float(node.attributes["epsilon"]))


def _layer_norm(draft: OnnxDraft, node: Node) -> str:
    shape, epsilon = tuple(node.attributes["shape"]), float(node.attributes["epsilon"])
    neutral = np.ones(shape, np.float32)
    weight = draft.tensor(node, "weight") if "weight" in node.tensors else draft.store(neutral, f"{node.name}:ones")
    bias = [draft.tensor(node, "bias")] if "bias" in node.tensors else []
    return draft.emit("LayerNormalization", [*draft.inputs(node), weight, *bias], axis=-len(shape), epsilon=epsilon)


def _group_norm(draft: OnnxDraft, node: Node) -> str:
    """Every group is one instance: instance normalisation of [n, groups, rest], then factor and offset per channel."""
    groups, shape = int(node.attributes["groups"]), draft.shape(node.output)
    flat = draft.emit("Reshape", [*draft.inputs(node), draft.integers(0, groups, -1)])
    neutral = [draft.store(np.full(groups, fill, np.float32), f"{node.name}:{fill}") for fill in (1, 0)]
    y = draft.emit("InstanceNormalization", [flat, *neutral], epsilon=float(node.attributes["epsilon"]))
    y = draft.emit("Reshape", [y, draft.integers(0, *shape)])
    for role, operator in (("weight", "Mul"), ("bias", "Add")):
        if role in node.tensors:
            channels = draft.array(node, role).reshape(-1, *([1] * (len(shape) - 1)))
            y = draft.emit(operator, [y, draft.store(channels, f"{node.tensors[role]}:{len(shape)}")])
    return y


def _clip(draft: OnnxDraft, node: Node) -> str:
    bounds = [draft.number(node.attributes[name]) for name in ("low", "high")]
    return draft.emit("Clip", [*draft.inputs(node), *bounds])


def _silu(draft: OnnxDraft, node: Node) -> str:
    (x,) = draft.inputs(node)
    return draft.emit("Mul", [x, draft.emit("Sigmoid", [x])])


def _arithmetic(operator: str) -> OnnxRule:
    def rule(draft: OnnxDraft, node: Node) -> str:
        other = []
        if "constant" in node.tensors:
            other = [draft.tensor(node, "constant")]
        elif "scalar" in node.attributes:
            other = [draft.number(node.attributes["scalar"])]
        return draft.emit(operator, [*draft.inputs(node), *other])

    return rule


def _trailing(draft: OnnxDraft, node: Node) -> list[int]:
    """Return trailing padding that places every window of ceil mode; runtimes disagree about ceil_mode itself."""
    a, extents, out = node.attributes, draft.shape(node.inputs[0])[1:], draft.shape(node.output)[1:]
    dilation = a.get("dilation", (1, 1))
    need = [(out[i] - 1) * a["stride"][i] + dilation[i] * (a["kernel"][i] - 1) + 1 for i in (0, 1)]
    return [
        max(a["padding"][i], need[i] - a["padding"][i] - extents[i]) if a["ceil"] else a["padding"][i] for i in (0, 1)
    ]


def _max_pool2d(draft: OnnxDraft, node: Node) -> str:
    a = node.attributes
    return draft.emit(
        "MaxPool",
        draft.inputs(node),
        kernel_shape=list(a["kernel"]),
        strides=list(a["stride"]),
        pads=[*a["padding"], *_trailing(draft, node)],
        dilations=list(a["dilation"]),
    )


def _avg_pool2d(draft: OnnxDraft, node: Node) -> str:
    a, (x,) = node.attributes, draft.inputs(node)
    padding, trailing = list(a["padding"]), _trailing(draft, node)
    if a["ceil"] and a["count_pad"] and any(padding):
        # The declared padding counts, what ceil mode adds beyond it does not.
        x = draft.emit("Pad", [x, draft.integers(0, 0, *padding, 0, 0, *padding), draft.number(0.0)])
        padding, trailing = [0, 0], [trailing[i] - padding[i] for i in (0, 1)]
    return draft.emit(
        "AveragePool",
        [x],
        kernel_shape=list(a["kernel"]),
        strides=list(a["stride"]),
        pads=[*padding, *trailing],
        count_include_pad=int(a["count_pad"] and not a["ceil"]),
    )


def _adaptive_avg_pool2d(draft: OnnxDraft, node: Node) -> str:
    """Global, or a product with averaging matrices from both sides (windows may be of unequal size)."""
    (x,), extents, out = draft.inputs(node), draft.shape(node.inputs[0])[1:], draft.shape(node.output)[1:]
    if tuple(out) == (1, 1):
        return draft.emit("GlobalAveragePool", [x])
    rows, columns = (_averaging(extents[i], out[i]) for i in (0, 1))
    x = draft.emit("MatMul", [draft.store(rows, f"{node.name}:rows"), x])
    return draft.emit("MatMul", [x, draft.store(columns.T, f"{node.name}:columns")])


def _averaging(extent: int, out: int) -> np.ndarray:
    matrix = np.zeros((out, extent), np.float32)
    for i in range(out):
        start, stop = i * extent // out, -(-(i + 1) * extent // out)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


def _mean(draft: OnnxDraft, node: Node) -> str:
    axes = draft.integers(*(axis + 1 for axis in node.attributes["axes"]))
    return draft.emit("ReduceMean", [*draft.inputs(node), axes], keepdims=int(node.attributes["keep"]))


def _slice(draft: OnnxDraft, node: Node) -> str:
    a = node.attributes
    bounds = [draft.integers(number) for number in (a["start"], a["stop"], a["axis"] + 1, a["step"])]
    return draft.emit("Slice", [*draft.inputs(node), *bounds])


def _select(draft: OnnxDraft, node: Node) -> str:
    index = draft.store(np.array(node.attributes["index"], np.int64))
    return draft.emit("Gather", [*draft.inputs(node), index], axis=node.attributes["axis"] + 1)


def _pad(draft: OnnxDraft, node: Node) -> str:
    padding = node.attributes["padding"]
    pads = draft.integers(0, *(before for before, _ in padding), 0, *(after for _, after in padding))
    return draft.emit("Pad", [*draft.inputs(node), pads, draft.number(node.attributes["value"])])


def _constant(draft: OnnxDraft, node: Node) -> str:
    shape = draft.shape(node.output)
    stored = draft.store(draft.array(node, "value").reshape(1, *shape), f"{node.tensors['value']}:{len(shape)}")
    batch = draft.emit("Shape", ["input"], start=0, end=1)
    return draft.emit("Expand", [stored, draft.emit("Concat", [batch, draft.integers(*shape)], axis=0)])


ONNX_RULES: Mapping[str, OnnxRule] = {
    **ONNX_PRODUCTS,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "relu": _plain("Relu"),
    "clip": _clip,
    "leaky_relu": lambda draft, node: draft.emit(
        "LeakyRelu", draft.inputs(node), alpha=float(node.attributes["slope"])
    ),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "silu": _silu,
    "gelu": lambda draft, node: draft.emit("Gelu", draft.inputs(node), approximate=node.attributes["approximate"]),
    "hard_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_swish": _plain("HardSwish"),
    "softmax": lambda draft, node: draft.emit("Softmax", draft.inputs(node), axis=node.attributes["axis"] + 1),
    "add": _arithmetic("Add"),
    "sub": _arithmetic("Sub"),
    "mul": _arithmetic("Mul"),
    "div": _arithmetic("Div"),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "concat": lambda draft, node: draft.emit("Concat", draft.inputs(node), axis=node.attributes["axis"] + 1),
    "reshape": lambda draft, node: draft.emit(
        "Reshape", [*draft.inputs(node), draft.integers(0, *draft.shape(node.output))]
    ),
    "permute": lambda draft, node: draft.emit(
        "Transpose", draft.inputs(node), perm=[0, *(axis + 1 for axis in node.attributes["axes"])]
    ),
    "slice": _slice,
    "select": _select,
    "pad": _pad,
    "constant": _constant,
    "identity": _plain("Identity"),
}
