"""Linear algebra of the packed runtime: signs on bits, quantised values on integers, floats in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from edgeward.backends.cleartext.packed_plan import Step
from edgeward.backends.cleartext.packed_windows import padded, patches, shifted
from edgeward.native import binary_matmul, ordered_matmul, pack_signs

Runner: TypeAlias = "Callable[[list[np.ndarray]], np.ndarray]"
Prepare: TypeAlias = "Callable[[Step, bool], Runner]"
Product: TypeAlias = "Callable[[np.ndarray], np.ndarray]"

_EXACT_IN_FLOAT32 = 1 << 24


def _float_product(matrix: np.ndarray, native: bool) -> Product:
    """x [p, k] times `matrix` [k, o], summed in one order on every machine."""
    columns = np.ascontiguousarray(matrix, np.float32)
    return lambda rows: ordered_matmul(np.ascontiguousarray(rows, np.float32), columns, native=native)


def _integer_product(matrix: np.ndarray, largest: int) -> Product:
    """Products of integers: exact in whichever float type holds the largest sum, hence free of order."""
    exact = largest * max(1, int(np.abs(matrix).sum(axis=0).max(initial=0))) < _EXACT_IN_FLOAT32
    columns = np.ascontiguousarray(matrix, np.float32 if exact else np.float64)
    return lambda rows: rows.astype(columns.dtype, copy=False) @ columns


def _centred_codes(step: Step) -> np.ndarray:
    """Return the signed weight integers q as float32."""
    top = 2 ** (step.attributes["weight_bits"] - 1) - 1
    return np.asarray(step.tensors["weight"].array.astype(np.float32) - top)


def _levels(step: Step) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rounding of activations to centred integers q - z (as `graph.quantized.fake_quantize_activation`)."""
    scale = np.float32(step.tensors["activation_scale"].array.reshape(-1)[0])
    zero_point = np.float32(step.tensors["activation_zero_point"].array.reshape(-1)[0])
    top = np.float32(2 ** step.attributes["activation_bits"] - 1)

    def rounded(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(np.round(x / scale) + zero_point, 0, top) - zero_point)

    return rounded


def _largest_level(step: Step) -> int:
    zero_point = float(step.tensors["activation_zero_point"].array.reshape(-1)[0])
    return int(max(abs(zero_point), abs(2 ** step.attributes["activation_bits"] - 1 - zero_point))) + 1


def _finish(step: Step, factor: np.ndarray | None) -> Product:
    """Return y -> float32(y factor) + bias over the last axis, as the reference does."""
    bias = step.tensors["bias"].array if "bias" in step.tensors else None

    def finish(y: np.ndarray) -> np.ndarray:
        scaled = (y * factor).astype(np.float32) if factor is not None else y.astype(np.float32, copy=False)
        return scaled + bias if bias is not None else scaled

    return finish


def _scale(step: Step) -> np.ndarray | None:
    return step.tensors["scale"].array if "scale" in step.tensors else None


def _input_and_weight(step: Step) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, np.ndarray | None, bool]:
    """Return how the input is rounded, the weight, the factor behind the product, and whether integers meet."""
    if step.operator in ("linear", "conv2d"):
        return (lambda x: x), step.tensors["weight"].array, None, False
    codes, scale = _centred_codes(step), step.tensors["weight_scale"].array.reshape(-1)
    if step.attributes["activation_bits"] == 32:
        return (lambda x: x), codes * scale.reshape(-1, *([1] * (codes.ndim - 1))), None, False
    activation = np.float64(step.tensors["activation_scale"].array.reshape(-1)[0])
    zero_point = float(step.tensors["activation_zero_point"].array.reshape(-1)[0])
    integers = zero_point.is_integer()
    return _levels(step), codes, scale.astype(np.float64) * activation, integers


def linear(step: Step, native: bool) -> Runner:
    """Float, weight-only or quantised products over the last axis."""
    rounding, weight, factor, integers = _input_and_weight(step)
    product = _integer_product(weight.T, _largest_level(step)) if integers else _float_product(weight.T, native)
    finish = _finish(step, factor)

    def run(x: list[np.ndarray]) -> np.ndarray:
        rows = rounding(x[0]).reshape(-1, weight.shape[1])
        return finish(product(rows)).reshape(len(x[0]), *step.shape)

    return run


def conv2d(step: Step, native: bool) -> Runner:
    """Float, weight-only or quantised convolutions; padding is zero after rounding."""
    rounding, weight, factor, integers = _input_and_weight(step)
    a, finish = step.attributes, _finish(step, factor)
    groups, (outputs, inputs, *kernel) = a["groups"], weight.shape
    if groups > 1 and inputs == 1:
        return _depthwise(step, lambda x: rounding(x), weight, finish)
    matrices = weight.transpose(0, 2, 3, 1).reshape(groups, outputs // groups, -1)
    largest = _largest_level(step) if integers else 0
    products = [_integer_product(m.T, largest) if integers else _float_product(m.T, native) for m in matrices]

    def run(x: list[np.ndarray]) -> np.ndarray:
        images = padded(np.ascontiguousarray(rounding(x[0]).transpose(0, 2, 3, 1)), a["padding"])
        found = []
        for group, product in enumerate(products):
            part = images[..., group * inputs : (group + 1) * inputs]
            rows = patches(part, kernel, a["stride"], a["dilation"])
            found.append(product(rows.reshape(-1, matrices.shape[2])))
        y = finish(np.concatenate(found, axis=1) if groups > 1 else found[0])
        return np.asarray(y.reshape(len(x[0]), *step.shape[1:], outputs).transpose(0, 3, 1, 2))

    return run


def _depthwise(step: Step, rounding: Callable[[np.ndarray], np.ndarray], weight: np.ndarray, finish: Product) -> Runner:
    """One input channel per output: a sum over the window of whole images, in one order."""
    a, (outputs, _, *kernel) = step.attributes, weight.shape
    repeats = outputs // a["groups"]
    taps = weight.reshape(outputs, -1).T.astype(np.float32)
    around = -1.0 if step.operator == "binary_conv2d" else 0.0

    def run(x: list[np.ndarray]) -> np.ndarray:
        width = ((0, 0), (0, 0), (a["padding"][0],) * 2, (a["padding"][1],) * 2)
        images = np.pad(rounding(x[0]), width, constant_values=around).repeat(repeats, axis=1)
        y = np.zeros((len(images), *step.shape), np.float32)
        for view, tap in zip(shifted(images, step.shape[1:], kernel, a["stride"], a["dilation"]), taps, strict=True):
            y += view * tap[:, None, None]
        return np.asarray(finish(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))

    return run


def _signs(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(x >= 0, np.float32(1), np.float32(-1)))


def _sign_weight(step: Step) -> np.ndarray:
    return step.tensors["weight"].array.astype(np.float32) * 2 - 1


def binary_linear(step: Step, native: bool) -> Runner:
    """Products of signs over the last axis, on packed bits."""
    weight = _sign_weight(step)
    bits, words, variant = weight.shape[1], pack_signs(weight), None if native else "portable"
    finish = _finish(step, _scale(step))

    def run(x: list[np.ndarray]) -> np.ndarray:
        rows = pack_signs(x[0].reshape(-1, bits))
        return finish(binary_matmul(rows, words, bits, variant)).reshape(len(x[0]), *step.shape)

    return run


def binary_conv2d(step: Step, native: bool) -> Runner:
    """Convolutions of signs on bits packed along the channels; a padding bit of 0 is the sign -1."""
    weight, finish = _sign_weight(step), _finish(step, _scale(step))
    a, variant = step.attributes, None if native else "portable"
    groups, (outputs, inputs, *kernel) = a["groups"], weight.shape
    if groups > 1 and inputs == 1:
        return _depthwise(step, _signs, weight, finish)
    bits = inputs * kernel[0] * kernel[1]
    words = pack_signs(weight.transpose(0, 2, 3, 1)).reshape(groups, outputs // groups, -1)

    def run(x: list[np.ndarray]) -> np.ndarray:
        images, found = x[0].transpose(0, 2, 3, 1), []
        for group, of_group in enumerate(words):
            packed = pack_signs(images[..., group * inputs : (group + 1) * inputs])
            rows = patches(padded(packed, a["padding"]), kernel, a["stride"], a["dilation"])
            found.append(binary_matmul(rows.reshape(-1, of_group.shape[1]), of_group, bits, variant))
        y = finish(np.concatenate(found, axis=1) if groups > 1 else found[0])
        return np.asarray(y.reshape(len(x[0]), *step.shape[1:], outputs).transpose(0, 3, 1, 2))

    return run


PRODUCTS: Mapping[str, Prepare] = {
    "linear": linear,
    "conv2d": conv2d,
    "quantized_linear": linear,
    "quantized_conv2d": conv2d,
    "binary_linear": binary_linear,
    "binary_conv2d": binary_conv2d,
}
