"""Every other operator of the packed runtime, in NumPy.

Operators of `INEXACT` take exponentials, roots of sums or batched products in double precision and round once; all
others use IEEE 754 operations in a fixed order and give the same bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgeward.backends.cleartext.packed_plan import Step
from edgeward.backends.cleartext.packed_products import PRODUCTS, Prepare, Runner
from edgeward.backends.cleartext.packed_windows import covered, shifted
from edgeward.native import ordered_matmul

INEXACT = frozenset(
    {"matmul", "attention", "layer_norm", "group_norm", "sigmoid", "tanh", "silu", "gelu", "softmax"},
)


def _plain(function: Callable[[np.ndarray], np.ndarray]) -> Prepare:
    return lambda step, native: lambda x: function(x[0])


def _in_double(function: Callable[[np.ndarray], np.ndarray]) -> Prepare:
    def apply(x: np.ndarray) -> np.ndarray:
        return function(x.astype(np.float64)).astype(np.float32)

    return _plain(apply)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(x + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6))


def _softmax_over(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _gelu(step: Step, native: bool) -> Runner:
    if step.attributes["approximate"] == "tanh":
        return _in_double(lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))(
            step, native
        )
    from scipy.special import erf

    return _in_double(lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))))(step, native)


def _clip(step: Step, native: bool) -> Runner:
    low, high = np.float32(step.attributes["low"]), np.float32(step.attributes["high"])
    return lambda x: np.clip(x[0], low, high)


def _leaky_relu(step: Step, native: bool) -> Runner:
    slope = np.float32(step.attributes["slope"])
    return lambda x: np.where(x[0] > 0, x[0], x[0] * slope)


def _affine(step: Step, native: bool) -> Runner:
    shape = (-1, *([1] * (len(step.shape) - 1)))
    factor, offset = (step.tensors[role].array.reshape(shape) for role in ("weight", "bias"))
    return lambda x: x[0] * factor + offset


def _normalised(y: np.ndarray, epsilon: float) -> np.ndarray:
    centred = y - y.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon))


def _layer_norm(step: Step, native: bool) -> Runner:
    epsilon, over = step.attributes["epsilon"], math.prod(step.attributes["shape"])
    weight, bias = (step.tensors[role].array if role in step.tensors else None for role in ("weight", "bias"))

    def run(x: list[np.ndarray]) -> np.ndarray:
        y = _normalised(x[0].astype(np.float64).reshape(-1, over), epsilon).reshape(x[0].shape)
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).astype(np.float32)

    return run


def _group_norm(step: Step, native: bool) -> Runner:
    epsilon, groups = step.attributes["epsilon"], step.attributes["groups"]
    shape = (-1, *([1] * (len(step.shape) - 1)))
    weight, bias = (
        step.tensors[role].array.reshape(shape) if role in step.tensors else None for role in ("weight", "bias")
    )

    def run(x: list[np.ndarray]) -> np.ndarray:
        y = _normalised(x[0].astype(np.float64).reshape(len(x[0]) * groups, -1), epsilon).reshape(x[0].shape)
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).astype(np.float32)

    return run


def _arithmetic(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Prepare:
    def prepare(step: Step, native: bool) -> Runner:
        other = None
        if "constant" in step.tensors:
            other = step.tensors["constant"].array
        elif "scalar" in step.attributes:
            other = np.float32(step.attributes["scalar"])

        def run(x: list[np.ndarray]) -> np.ndarray:
            return function(x[0], x[1] if other is None else other)

        return run

    return prepare


def _max_pool2d(step: Step, native: bool) -> Runner:
    a = step.attributes

    def run(x: list[np.ndarray]) -> np.ndarray:
        views = shifted(_reach(step, x[0], -np.inf), step.shape[1:], a["kernel"], a["stride"], a["dilation"])
        y = views[0].copy()
        for view in views[1:]:
            np.maximum(y, view, out=y)
        return np.asarray(y)

    return run


def _avg_pool2d(step: Step, native: bool) -> Runner:
    a = step.attributes

    def run(x: list[np.ndarray]) -> np.ndarray:
        views = shifted(_reach(step, x[0], 0.0), step.shape[1:], a["kernel"], a["stride"], (1, 1))
        y = views[0].copy()
        for view in views[1:]:
            y += view
        rows, columns = (
            covered(
                x[0].shape[2 + i], step.shape[1 + i], a["kernel"][i], a["stride"][i], a["padding"][i], a["count_pad"]
            )
            for i in (0, 1)
        )
        return np.asarray(y / np.maximum(rows[:, None] * columns[None], 1).astype(np.float32))

    return run


def _reach(step: Step, x: np.ndarray, value: float) -> np.ndarray:
    """Pad images so that every window lies inside (ceil mode may reach beyond the trailing padding)."""
    a, width = step.attributes, [(0, 0), (0, 0)]
    for i in (0, 1):
        dilation = a["dilation"][i] if "dilation" in a else 1
        need = (step.shape[1 + i] - 1) * a["stride"][i] + dilation * (a["kernel"][i] - 1) + 1
        width.append((a["padding"][i], max(0, need - a["padding"][i] - x.shape[2 + i])))
    return np.pad(x, width, constant_values=value)


def _ordered_mean(rows: np.ndarray, native: bool) -> np.ndarray:
    """Mean over the last axis of [p, k], summed from first to last."""
    ones = np.ones((rows.shape[1], 1), np.float32)
    return np.asarray(ordered_matmul(np.ascontiguousarray(rows), ones, native=native)[:, 0] / np.float32(rows.shape[1]))


def _adaptive_avg_pool2d(step: Step, native: bool) -> Runner:
    channels, height, width = step.shape

    def run(x: list[np.ndarray]) -> np.ndarray:
        y = np.empty((len(x[0]), *step.shape), np.float32)
        for i in range(height):
            for j in range(width):
                rows = slice(i * x[0].shape[2] // height, -(-(i + 1) * x[0].shape[2] // height))
                columns = slice(j * x[0].shape[3] // width, -(-(j + 1) * x[0].shape[3] // width))
                window = x[0][:, :, rows, columns]
                size = window.shape[2] * window.shape[3]
                y[:, :, i, j] = _ordered_mean(window.reshape(-1, size), native).reshape(-1, channels)
        return y

    return run


def _mean(step: Step, native: bool) -> Runner:
    axes = [axis + 1 for axis in step.attributes["axes"]]

    def run(x: list[np.ndarray]) -> np.ndarray:
        kept = [axis for axis in range(x[0].ndim) if axis not in axes]
        size = math.prod(x[0].shape[axis] for axis in axes)
        rows = x[0].transpose(*kept, *axes).reshape(-1, size)
        return _ordered_mean(rows, native).reshape(len(x[0]), *step.shape)

    return run


def _matmul(step: Step, native: bool) -> Runner:
    return lambda x: np.matmul(x[0].astype(np.float64), x[1].astype(np.float64)).astype(np.float32)


def _attention(step: Step, native: bool) -> Runner:
    def run(x: list[np.ndarray]) -> np.ndarray:
        query, key, value = (part.astype(np.float64) for part in x)
        weights = _softmax_over(query @ key.swapaxes(-2, -1) * step.attributes["scale"], -1)
        return (weights @ value).astype(np.float32)

    return run


def _slice(step: Step, native: bool) -> Runner:
    a = step.attributes
    place = (slice(None),) * (a["axis"] + 1) + (slice(a["start"], a["stop"], a["step"]),)
    return lambda x: x[0][place]


def _pad(step: Step, native: bool) -> Runner:
    width = [(0, 0), *(tuple(pair) for pair in step.attributes["padding"])]
    return lambda x: np.pad(x[0], width, constant_values=step.attributes["value"])


STEPS: Mapping[str, Prepare] = {
    **PRODUCTS,
    "affine": _affine,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "relu": _plain(lambda x: np.maximum(x, np.float32(0))),
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "sigmoid": _in_double(_sigmoid),
    "tanh": _in_double(np.tanh),
    "silu": _in_double(lambda x: x * _sigmoid(x)),
    "gelu": _gelu,
    "hard_sigmoid": _plain(_hard_sigmoid),
    "hard_swish": _plain(lambda x: x * _hard_sigmoid(x)),
    "softmax": lambda step, native: _in_double(lambda x: _softmax_over(x, step.attributes["axis"] + 1))(step, native),
    "add": _arithmetic(np.add),
    "sub": _arithmetic(np.subtract),
    "mul": _arithmetic(np.multiply),
    "div": _arithmetic(np.divide),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "matmul": _matmul,
    "attention": _attention,
    "concat": lambda step, native: lambda x: np.concatenate(x, axis=step.attributes["axis"] + 1),
    "reshape": lambda step, native: lambda x: x[0].reshape(len(x[0]), *step.shape),
    "permute": lambda step, native: lambda x: x[0].transpose(0, *(axis + 1 for axis in step.attributes["axes"])),
    "slice": _slice,
    "select": lambda step, native: lambda x: x[0].take(step.attributes["index"], axis=step.attributes["axis"] + 1),
    "pad": _pad,
    "identity": _plain(lambda x: x),
}
