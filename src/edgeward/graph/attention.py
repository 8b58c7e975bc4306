"""Multi-head attention traced with the batch in front: a stand-in for PyTorch's forward while a module is captured."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def straighten(module: nn.Module) -> None:
    """Give every `nn.MultiheadAttention` inside `module` a forward that never moves the batch axis.

    PyTorch's own forward transposes to [T, B, D] and folds heads into the batch, which hides the records from a graph
    that counts shapes per record. Parameters and their names stay. The module is changed: pass a copy.
    """
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention) and layer.batch_first and layer.bias_k is None:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
        if isinstance(layer, nn.TransformerEncoderLayer):
            # Keeps PyTorch from its fused inference kernel, which is one opaque operator.
            layer.activation_relu_or_gelu = 0
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False


def _forward(
    self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    masks = [options.get("key_padding_mask"), options.get("attn_mask"), *arguments[:1], *arguments[2:3]]
    if any(mask is not None for mask in masks):
        return nn.MultiheadAttention.forward(self, query, key, value, *arguments, **options)
    q, k, v = (_heads(part, self.num_heads) for part in _projected(self, query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    answer = self.out_proj(mixed)
    if not options.get("need_weights", arguments[1] if len(arguments) > 1 else True):
        return answer, None
    weights = torch.softmax(q @ k.transpose(2, 3) / self.head_dim**0.5, dim=-1)
    return answer, weights.mean(1) if options.get("average_attn_weights", True) else weights


def _heads(tokens: Tensor, heads: int) -> Tensor:
    count, length, width = tokens.shape
    return tokens.reshape(count, length, heads, width // heads).transpose(1, 2)


def _projected(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    if layer.in_proj_weight is None:
        weights: tuple[Tensor, ...] = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    elif query is key and key is value:
        return F.linear(query, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=2)
    else:
        weights = layer.in_proj_weight.chunk(3)
    biases = layer.in_proj_bias.chunk(3) if layer.in_proj_bias is not None else (None,) * 3
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
