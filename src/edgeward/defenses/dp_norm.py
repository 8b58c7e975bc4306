"""Layers that DP-SGD exchanges: normalisation within a record instead of over a batch, and nothing in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeward.core.errors import ModelError

MOST_GROUPS = 32
FEWEST_NUMBERS = 16
"""Numbers in a group, where the map has as many: z-scoring k numbers leaves k - 2 of them free."""


@final
class FittedGroupNorm(nn.GroupNorm):
    """GroupNorm whose groups follow from the map it is given: as many as leave each group enough numbers.

    Shapes: x [B, C, ...]; returns the same. Groups are at most gcd(32, C), or one for flat features (`flat`), and each
    holds C / groups * H * W >= 16 numbers; a map of fewer than 16 numbers is one group, one of a single number is
    refused, since its normalised value is 0 for every record.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, name: str) -> None:
        """Take the place of the batch normalisation `norm`, called `name` in its network, with its scale and shift."""
        super().__init__(1, norm.num_features, eps=norm.eps, affine=norm.affine)
        self.flat, self.replaced = isinstance(norm, nn.BatchNorm1d), name
        if norm.affine:
            self.weight, self.bias = norm.weight, norm.bias
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group of each record."""
        groups = self.groups_of(tuple(input.shape[1:]))
        if self.num_groups != groups:
            self.num_groups = groups  # Opacus' rule for per-sample gradients reads it
        return F.group_norm(input, groups, self.weight, self.bias, self.eps)

    def groups_of(self, shape: tuple[int, ...]) -> int:
        """Return the number of groups for records [C, ...]; raises `ModelError` for a record of a single number."""
        numbers = math.prod(shape)
        if numbers < 2:
            raise ModelError(
                f"no normalisation within a record can replace '{self.replaced}'",
                expected="at least two numbers per record at this layer",
                came=f"records of shape {list(shape)}",
                fix="leave the normalisation out there, give it more channels, or leave dp_sgd out",
            )
        most = 1 if self.flat else math.gcd(MOST_GROUPS, shape[0])
        fitting = [g for g in range(1, most + 1) if most % g == 0 and numbers // g >= FEWEST_NUMBERS]
        return max(fitting, default=1)


def decoupled(module: nn.Module, fixers: Mapping[Any, Callable[[nn.Module], nn.Module]]) -> nn.Module:
    """Replace what couples the records of a batch, and what `fixers` (of Opacus, by type) replace, layer by layer.

    A layer that stands in several places is replaced by one layer in all of them; scale, shift and what is frozen stay.
    Activations stop to work in place: hooks on their inputs forbid it. Opacus' own `fix` pickles the whole network,
    which a user's class need not support.
    """
    done: dict[int, nn.Module] = {}

    def exchanged(layer: nn.Module, name: str) -> nn.Module:
        if id(layer) not in done:
            done[id(layer)] = _exchanged(layer, name, fixers)
            if done[id(layer)] is layer:
                for child, inner in list(layer._modules.items()):  # named_children hides repeated layers
                    if inner is not None:
                        setattr(layer, child, exchanged(inner, f"{name}.{child}" if name else child))
        return done[id(layer)]

    changed = exchanged(module, "")
    for layer in changed.modules():
        if getattr(layer, "inplace", False) is True:
            vars(layer)["inplace"] = False
    return changed


def _exchanged(layer: nn.Module, name: str, fixers: Mapping[Any, Callable[[nn.Module], nn.Module]]) -> nn.Module:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return FittedGroupNorm(layer, name)
    fixer = fixers.get(type(layer))
    if fixer is None:
        return layer
    new = fixer(layer)
    if not any(p.requires_grad for p in layer.parameters()) and list(layer.parameters()):
        new.requires_grad_(False)
    return new


def own_outputs(module: nn.Module) -> None:
    """Let every layer with backward hooks return a tensor of its own: on PyTorch's view nothing may act in place."""
    for layer in module.modules():
        if layer._backward_hooks:
            vars(layer)["_call_impl"] = _Owning(layer)


@final
class _Owning:
    """Calls a layer and copies what it returns."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        answer = type(self.layer)._call_impl(self.layer, *arguments, **options)  # type: ignore[no-untyped-call]
        return answer.clone() if isinstance(answer, torch.Tensor) else answer
