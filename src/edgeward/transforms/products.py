"""The products inside a layer's own forward: found while it runs, and handed to what the layer became."""

from __future__ import annotations

import types
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgeward.transforms.transform import Derived

Pair: TypeAlias = tuple[int, int]
_SAME = "same"


@final
@dataclass(frozen=True)
class Product:
    """One call of `conv2d` or `linear`: its operands, and for a convolution its geometry with numeric padding."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    convolution: bool = True

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the same product of other operands."""
        if not self.convolution:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def _pair(extent: int | tuple[int, ...]) -> Pair:
    return (extent, extent) if isinstance(extent, int) else (int(extent[0]), int(extent[-1]))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Product:
    return Product(input, weight, bias, convolution=False)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Product:
    stride, dilation = _pair(stride), _pair(dilation)
    if padding == _SAME:
        # as PyTorch does it: the odd zero comes after
        total = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        odd = [n % 2 for n in total]
        input = F.pad(input, (0, odd[1], 0, odd[0])) if any(odd) else input
        padding = (total[0] // 2, total[1] // 2)
    padding = (0, 0) if padding == "valid" else _pair(padding)
    return Product(input, weight, bias, stride, padding, dilation, groups)


# One object under two names each: `torch.nn.functional` and `torch` (or its core) export the same function.
_CALLS: dict[Any, Callable[..., Product]] = {F.conv2d: _convolution, F.linear: _linear}


class Host(Derived):
    """A layer that keeps the forward of its own class, and computes the products inside in another way.

    Made by `hosted`, never by calling the class. What counts is a call of `conv2d` or `linear` whose weight has the
    shape of the layer's own, be it that weight or one computed from it.
    """

    weight_shape: torch.Size

    @abstractmethod
    def compute(self, product: Product) -> Tensor:
        """Return what stands in place of `product`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of the layer's own class, its products redirected."""
        with _Redirected(self):
            return super(Derived, self).forward(*args, **kwargs)


@final
class _Redirected(TorchFunctionMode):
    """While entered, hands the products of a layer to it."""

    def __init__(self, layer: Host) -> None:
        super().__init__()
        self._layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the answer of one call of PyTorch."""
        if func in _CALLS:
            product = _CALLS[func](*args, **(kwargs or {}))
            if product.weight.shape == self._layer.weight_shape:
                return self._layer.compute(product)
        return func(*args, **(kwargs or {}))


HostT = TypeVar("HostT", bound=Host)


def hosted(layer: nn.Module, kind: type[HostT]) -> HostT:
    """Turn `layer` into a `kind` of its own class, in place: names of tensors, attributes and hooks stay.

    The class is made here as `torch.nn.utils.parametrize` makes its own: a subclass of both.
    """
    layer.__class__ = types.new_class(f"{kind.__name__}{type(layer).__name__}", (kind, type(layer)))
    changed = cast("HostT", layer)
    changed.weight_shape = changed.weight.shape
    return changed
