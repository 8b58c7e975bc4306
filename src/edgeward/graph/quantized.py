"""Custom operators that keep quantised and binary layers whole through `torch.export`.

Modules of `transforms` call them while exporting, so that a captured graph shows one node per layer instead of the
arithmetic of its emulation. They are inference-only references: no gradient, no vmap.
"""

# No `from __future__ import annotations` here: torch.library reads the annotations to infer each operator's schema.

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BIAS_STEPS = 2**29
"""Largest bias of a layer that rounds its inputs, in steps (weight scale times input scale) of its accumulator.

Runtimes of integers keep a bias in 32 bits on that grid; the other three quarters are left to the products.
"""


def signs(x: Tensor) -> Tensor:
    """Return +1 where x >= 0 and -1 elsewhere (never 0)."""
    # In place and in the records' own type: a choice between two scalars is not vectorised, and took 13 times as long.
    return x.detach().clone().ge_(0).mul_(2).sub_(1)


def fake_quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Symmetric rounding of `weight` to `bits` with one scale per output channel (axis 0).

    q = clamp(round_half_even(w / s), -(2^(b-1) - 1), 2^(b-1) - 1); returns q s.
    """
    top = 2 ** (bits - 1) - 1
    per_channel = scale.reshape(-1, *([1] * (weight.dim() - 1)))
    return torch.clamp(torch.round(weight / per_channel), -top, top) * per_channel


def fake_quantize_activation(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Affine rounding of `x` to unsigned `bits` with one scale and zero point; bits >= 32 returns x.

    q = clamp(round_half_even(x / s) + z, 0, 2^b - 1); returns (q - z) s.
    """
    if bits >= 32:
        return x
    return (torch.clamp(torch.round(x / scale) + zero_point, 0, 2**bits - 1) - zero_point) * scale


@torch.library.custom_op("edgeward::binary_linear", mutates_args=())
def binary_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """scale[o] * (sign(x) sign(W)^T) + b."""
    y = F.linear(signs(x), signs(weight)) * scale
    return y if bias is None else y + bias


@binary_linear.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op("edgeward::binary_conv2d", mutates_args=())
def binary_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """scale[o] * conv2d(sign(x), sign(W)) + b, padded with -1 so that every operand is one bit."""
    padded = F.pad(signs(x), (padding[1], padding[1], padding[0], padding[0]), value=-1.0)
    y = F.conv2d(padded, signs(weight), None, list(stride), 0, list(dilation), groups) * scale.view(-1, 1, 1)
    return y if bias is None else y + bias.view(-1, 1, 1)


@binary_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return F.conv2d(x, weight, None, list(stride), list(padding), list(dilation), groups)


@torch.library.custom_op("edgeward::quantized_linear", mutates_args=())
def quantized_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scale: Tensor,
    activation_scale: Tensor,
    activation_zero_point: Tensor,
    weight_bits: int,
    activation_bits: int,
) -> Tensor:
    """Linear of the fake-quantised input with the fake-quantised weight."""
    a = fake_quantize_activation(x, activation_scale, activation_zero_point, activation_bits)
    return F.linear(a, fake_quantize_weight(weight, weight_scale, weight_bits), bias)


@quantized_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scale: Tensor,
    activation_scale: Tensor,
    activation_zero_point: Tensor,
    weight_bits: int,
    activation_bits: int,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op("edgeward::quantized_conv2d", mutates_args=())
def quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scale: Tensor,
    activation_scale: Tensor,
    activation_zero_point: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    weight_bits: int,
    activation_bits: int,
) -> Tensor:
    """conv2d of the fake-quantised input with the fake-quantised weight; padding is zero after dequantisation."""
    a = fake_quantize_activation(x, activation_scale, activation_zero_point, activation_bits)
    w = fake_quantize_weight(weight, weight_scale, weight_bits)
    return F.conv2d(a, w, bias, list(stride), list(padding), list(dilation), groups)


@quantized_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scale: Tensor,
    activation_scale: Tensor,
    activation_zero_point: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    weight_bits: int,
    activation_bits: int,
) -> Tensor:
    return F.conv2d(x, weight, bias, list(stride), list(padding), list(dilation), groups)
