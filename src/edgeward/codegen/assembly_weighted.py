"""Integer nodes of layers that hold weights: rounding, bias, and the proof that 32 bits hold every sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeward.codegen.draft import ASSEMBLIES, Draft
from edgeward.codegen.requantise import INT32_TOP, fixed_point
from edgeward.codegen.step import NoIntegerForm, Step
from edgeward.graph.quantized import BIAS_STEPS


def _weighted(draft: Draft, step: Step) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return int8 weights [O, ...] in the given layout, and the tensors of bias, multipliers and shifts.

    Every output channel has its own grid, symmetric, -127..127. The bias takes up the input's zero point.
    Guarantee: |bias| + 128 sum|w| <= 2^31 - 1 in every channel, so that no partial sum leaves 32 bits.
    """
    (scale_in,), scale_out = draft.scales(step)
    weight, bias = step.arrays["weight"], step.arrays["bias"]
    flat = weight.reshape(len(weight), -1)
    size = step.arrays["scale"] if "scale" in step.arrays else np.abs(flat).max(1, initial=0) / 127
    # A channel of zeros (or nearly) takes a grid on which its bias still fits 32 bits.
    size = np.maximum(size, np.abs(bias) / (scale_in * BIAS_STEPS))
    size = np.where(size > 0, size, scale_out / scale_in)
    rounded = np.clip(np.rint(flat / size[:, None]), -127, 127).astype(np.int8)
    sums = rounded.astype(np.int64)
    folded = np.rint(bias / (scale_in * size)).astype(np.int64) - draft.grids[step.inputs[0]].zero_point * sums.sum(1)
    reach = int((np.abs(folded) + 128 * np.abs(sums).sum(1)).max(initial=0))
    if reach > INT32_TOP:
        raise NoIntegerForm(f"sum fewer than {flat.shape[1]} products: 32 bits may overflow")
    fixed = [fixed_point(float(s)) for s in scale_in * size / scale_out]
    scaling = {
        "bias": folded.astype(np.int32),
        "multiplier": np.array([multiplier for multiplier, _ in fixed], np.int32),
        "shift": np.array([shift for _, shift in fixed], np.uint8),
    }
    return rounded.reshape(weight.shape), scaling


@ASSEMBLIES.register("conv2d")
def conv2d(draft: Draft, step: Step) -> None:
    """Convolution: general, or one filter per channel."""
    weight, scaling = _weighted(draft, step)
    attributes = {**step.attributes, **draft.bounds(step)}
    groups, channels = attributes["groups"], draft.network.values[step.inputs[0]].shape[0]
    if groups == channels == len(weight) and groups > 1:
        del attributes["groups"]
        filters = np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
        draft.write(step, "depthwise", attributes, {"weight": filters, **scaling})
    else:
        draft.write(
            step, "conv2d", attributes, {"weight": np.ascontiguousarray(weight.transpose(0, 2, 3, 1)), **scaling}
        )


@ASSEMBLIES.register("linear")
def linear(draft: Draft, step: Step) -> None:
    """Linear layer; the columns follow the order in memory."""
    weight, scaling = _weighted(draft, step)
    if step.inputs[0] in draft.order:
        weight = weight[:, draft.order[step.inputs[0]]]
    draft.write(step, "linear", draft.bounds(step), {"weight": np.ascontiguousarray(weight), **scaling})


@ASSEMBLIES.register("affine")
def affine(draft: Draft, step: Step) -> None:
    """A gain and a shift per channel: a depthwise filter of one pixel."""
    arrays = {"weight": step.arrays["gain"][:, None, None, None], "bias": step.arrays["shift"]}
    if step.inputs[0] in draft.order:
        arrays = {role: a[draft.order[step.inputs[0]]] for role, a in arrays.items()}
        draft.order[step.output] = draft.order[step.inputs[0]]
    weight, scaling = _weighted(draft, replace(step, arrays=arrays))
    _pixel_filter(draft, step, weight[:, 0].transpose(1, 2, 0), scaling, (0, 0, 0, 0))


def _pixel_filter(
    draft: Draft, step: Step, weight: np.ndarray, scaling: Mapping[str, np.ndarray], padding: tuple[int, ...]
) -> None:
    attributes = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), **draft.bounds(step)}
    tensors = {"weight": np.ascontiguousarray(weight), **scaling}
    if len(draft.network.values[step.output].shape) == 3:
        draft.write(step, "depthwise", attributes, tensors)
        return
    source, result, wide = step.inputs[0], f"{step.name}:result", (1, 1, weight.shape[-1])
    draft.declare(f"{step.name}:pixel", wide, draft.grids[source])
    draft.declare(result, wide, draft.grids[step.output])
    draft.append(f"{step.name}:pixel", "reshape", [source], f"{step.name}:pixel", {"shape": wide})
    draft.append(step.name, "depthwise", [f"{step.name}:pixel"], result, attributes, tensors)
    draft.declare(step.output, wide[2:], draft.grids[step.output])
    draft.append(f"{step.name}:result", "reshape", [result], step.output, {"shape": wide[2:]})


@ASSEMBLIES.register("pad")
def pad(draft: Draft, step: Step) -> None:
    """Padding that no window took: a filter of one pixel whose weight is exactly 1."""
    channels = draft.network.values[step.output].shape[0]
    zero = draft.grids[step.output].zero_point
    scaling: dict[str, np.ndarray] = {
        "bias": np.full(channels, -zero, np.int32),
        "multiplier": np.full(channels, 2**30, np.int32),
        "shift": np.full(channels, 30, np.uint8),
    }
    _pixel_filter(draft, step, np.ones((1, 1, channels), np.int8), scaling, step.attributes["padding"])
