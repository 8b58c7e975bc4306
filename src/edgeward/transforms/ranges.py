"""Ranges and scales of quantisers: what a batch spans, and the step that covers it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.graph.quantized import BIAS_STEPS

Scalar = Float[Tensor, ""]

# Step over standard deviation of the uniform quantiser with 2^b - 1 levels of least squared error on a Gaussian
# (Max, 1960, table II): at few bits a scale that reaches the largest weight would round almost all others to zero.
GAUSSIAN_STEP = {2: 1.224, 3: 0.6508, 4: 0.3534, 5: 0.1932}

SMALLEST_SCALE = 1e-18
"""Smallest step of anything: the product of two such steps is still a normal float32."""


def symmetric_scale(weight: Float[Tensor, " out *rest"], bits: int) -> Float[Tensor, " out"]:
    """Return one step per output channel: max|W| / (2^(b-1) - 1), below 6 bits at most the Gaussian optimum.

    An empty channel, whose every step is right, takes that of weights up to 1.

    >>> symmetric_scale(torch.tensor([[1.27, -0.5], [0.0, 0.0]]), 8)
    tensor([0.0100, 0.0079])
    """
    flat, top = weight.flatten(1), 2 ** (bits - 1) - 1
    largest = flat.abs().amax(1)
    scale = torch.where(largest > 0, largest, 1.0) / top
    if bits in GAUSSIAN_STEP:
        deviation = (flat / largest.clamp_min(SMALLEST_SCALE)[:, None]).square().mean(1).sqrt() * largest
        scale = torch.where(largest > 0, torch.minimum(scale, GAUSSIAN_STEP[bits] * deviation), scale)
    result: Tensor = scale.clamp_min(SMALLEST_SCALE)
    return result


def bearing_scale(scale: Float[Tensor, " out"], bias: Float[Tensor, " out"], step: Scalar) -> Float[Tensor, " out"]:
    """Return `scale`, widened where the bias would leave 32 bits: |bias| <= 2^29 scale step, `step` that of the input.

    A widened channel is nearly empty beside its bias: n products lose at most n |bias| / 2^22 (255 half steps each).

    >>> bearing_scale(torch.tensor([0.01, 0.01]), torch.tensor([2.0, 2e6]), torch.tensor(0.01))
    tensor([0.0100, 0.3725])
    """
    return torch.maximum(scale, bias.abs() / BIAS_STEPS / step)


def affine(low: Scalar, high: Scalar, bits: int) -> tuple[Scalar, Scalar]:
    """Return (scale, zero point) of an unsigned quantiser that covers [low, high] and represents 0 exactly.

    A range of nothing but 0 (a dead input) is taken for [0, 1]: its step then says nothing of the layer's weights.

    >>> affine(torch.tensor(-1.0), torch.tensor(2.0), 2)
    (tensor(1.), tensor(1.))
    """
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    top = 2**bits - 1
    span = high - low
    scale = (torch.where(span > 0, span, 1.0) / top).clamp_min(SMALLEST_SCALE)
    return scale, torch.round(-low / scale).clamp(0, top)


def batch_range(x: Float[Tensor, "*shape"], percentile: float) -> tuple[Scalar, Scalar]:
    """Return the extremes of `x`, or its order statistics at `percentile` and 100 - `percentile`.

    Cost: O(n) for extremes; a selection over n elements per bound below 100.
    """
    flat = x.flatten()
    if percentile >= 100:
        return flat.amin(), flat.amax()
    rank = max(1, round(flat.numel() * percentile / 100))
    return flat.kthvalue(flat.numel() + 1 - rank).values, flat.kthvalue(rank).values


def widen(
    old: tuple[Scalar, Scalar], new: tuple[Scalar, Scalar], seen: Scalar, *, extremes: bool
) -> tuple[Scalar, Scalar]:
    """Return the range after one more batch: the union of extremes, or the mean of percentiles over batches."""
    first = seen == 0
    if extremes:
        low, high = torch.minimum(old[0], new[0]), torch.maximum(old[1], new[1])
        return torch.where(first, new[0], low), torch.where(first, new[1], high)
    rate = 1.0 / (seen + 1.0)
    return torch.lerp(old[0], new[0], rate), torch.lerp(old[1], new[1], rate)
