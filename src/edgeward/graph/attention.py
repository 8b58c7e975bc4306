"""Multi-head attention traced with the batch in front: a stand-in for PyTorch's forward while a module is captured."""

from __future__ import annotations

from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def straighten(module: nn.Module) -> None:
    """Give every `nn.MultiheadAttention` inside `module` a forward that never moves the batch axis.

    PyTorch's own forward transposes to [T, B, D] and folds heads into the batch, which hides the records from a graph
    that counts shapes per record. Parameters and their names stay. The module is changed: pass a copy.
    """
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention) and _plain(layer):
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
        if isinstance(layer, nn.TransformerEncoderLayer):
            # Keeps PyTorch from its fused inference kernel, which is one opaque operator.
            layer.activation_relu_or_gelu = 0
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False


def _plain(layer: nn.MultiheadAttention) -> bool:
    """Return whether the layer computes what `_forward` does: no forward of its own, no learned key and value."""
    own = type(layer).forward is not nn.MultiheadAttention.forward or "forward" in vars(layer)
    return layer.batch_first and layer.bias_k is None and not own


def _forward(
    self: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    if key_padding_mask is not None or attn_mask is not None or is_causal or query.dim() != 3:
        options = {"attn_mask": attn_mask, "average_attn_weights": average_attn_weights, "is_causal": is_causal}
        return nn.MultiheadAttention.forward(
            self,
            query,
            key,
            value,
            key_padding_mask,
            need_weights,
            **options,  # type: ignore[arg-type]
        )
    q, k, v = (_heads(part, self.num_heads) for part in _projected(self, query, key, value))
    if self.add_zero_attn:
        # one more key and one more value, of zeros
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    answer = self.out_proj(mixed)
    if not need_weights:
        return answer, None
    weights = torch.softmax(q @ k.transpose(2, 3) / self.head_dim**0.5, dim=-1)
    return answer, weights.mean(1) if average_attn_weights else weights


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
