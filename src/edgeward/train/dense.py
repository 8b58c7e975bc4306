"""Stacked multi-layer perceptrons as plain batched products: `vmap` costs as much as their arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU)


def dense_layers(template: nn.Module, axes: int) -> Sequence[tuple[str, nn.Module]] | None:
    """Return the named layers of a plain sequence of linear and element-wise layers, None for any other network.

    `axes` of the records [S, B, ...]: more than three need a leading `nn.Flatten`.
    Subclasses and layers with hooks or parametrisations may do more than their arithmetic and do not qualify.
    """
    if type(template) is not nn.Sequential or _observed(template):
        return None
    # not named_children: it names a layer that stands in two places once
    layers = [(name, layer) for name, layer in template._modules.items() if layer is not None]
    flat = axes == 3 or (bool(layers) and _flattens(layers[0][1]))
    linear = [layer for _, layer in layers if type(layer) is nn.Linear]
    # a layer in two places, or a tensor that two layers share
    held = [id(tensor) for layer in linear for tensor in (layer.weight, layer.bias) if tensor is not None]
    shared = len(set(held)) < len(held)
    plain = all((type(layer) in (nn.Linear, *_ELEMENTWISE) or _flattens(layer)) for _, layer in layers)
    return layers if flat and plain and not shared and not any(_observed(layer) for _, layer in layers) else None


def _flattens(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)


def _observed(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def run_dense(
    layers: Sequence[tuple[str, nn.Module]], params: Mapping[str, Tensor], x: Float[Tensor, "S B ..."]
) -> Float[Tensor, "S B C"]:
    """Run S perceptrons on their own records: one batched product per linear layer."""
    for name, layer in layers:
        if isinstance(layer, nn.Flatten):
            x = x.flatten(2)
            continue
        if not isinstance(layer, nn.Linear):
            x = layer(x)
            continue
        weight, bias = params[f"{name}.weight"].mT, params.get(f"{name}.bias")
        x = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias[:, None], x, weight)
    return x
