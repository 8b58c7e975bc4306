"""The X-operator: a cheaper drop-in for a bottlenecked convolution, for protocols that pay per product.

The definition in Ganesan et al., arXiv 2209.00411, is not public to us. Both readings below are inferred from the
abstract (a drop-in for a bottlenecked convolution) and marked so by `XOperator.basis`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ConfigError
from edgeward.nets.densenet import DenseLayer
from edgeward.nets.initialization import he_normal
from edgeward.nets.mobilenet_v2 import InvertedResidual, divisible
from edgeward.transforms.convolution import padding_of
from edgeward.transforms.transform import EDGES, TRANSFORMS, Transform, replace_layers, targets

Pair = tuple[int, int]
Variant = Literal["hourglass", "crossed"]


@final
class Hourglass(nn.Module):
    """Wide, narrow, wide: 1x1 to the waist, k x k depthwise on the waist, 1x1 to the outputs; adds the input if asked.

    Cost: waist (inputs + k^2 + outputs) products per pixel, where an inverted bottleneck of expansion t pays
    t inputs (inputs + k^2 + outputs). Rectified values: 2 waist per pixel, before: 2 t inputs.
    """

    def __init__(
        self, inputs: int, outputs: int, waist: int, kernel: Pair, stride: Pair, padding: Pair, residual: bool
    ) -> None:
        """Create the block with fresh weights."""
        super().__init__()
        depthwise = nn.Conv2d(waist, waist, kernel, stride, padding, groups=waist, bias=False)
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, waist, 1, bias=False), nn.BatchNorm2d(waist), nn.ReLU()),
            *(depthwise, nn.BatchNorm2d(waist), nn.ReLU()),
            *(nn.Conv2d(waist, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.residual = residual

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the block's result."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


@final
class DenseHourglass(nn.Module):
    """An hourglass that appends its result to the input's channels, in place of a layer of a dense block."""

    def __init__(self, inputs: int, growth: int, waist: int) -> None:
        """Create the layer with fresh weights; it normalises and rectifies first, as dense layers do."""
        super().__init__()
        narrow = Hourglass(inputs, growth, waist, (3, 3), (1, 1), (1, 1), residual=False)
        self.body = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), narrow)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return x with `growth` more channels."""
        return torch.cat([x, self.body(x)], dim=1)


@final
class Crossed(nn.Module):
    """A pointwise convolution as two grouped ones whose paths cross: channels are dealt round the groups in between.

    Every output sees every input when both numbers of channels are multiples of groups squared. Cost:
    m (inputs + outputs) / groups products per pixel with m = min(inputs, outputs), before: inputs x outputs.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, stride: Pair, bias: bool) -> None:
        """Create both halves with fresh weights; `groups` divides inputs and outputs."""
        super().__init__()
        middle = min(inputs, outputs)
        self.first = nn.Conv2d(inputs, middle, 1, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.second = nn.Conv2d(middle, outputs, 1, groups=groups, bias=bias)
        self.groups, self.middle = groups, middle

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the block's result."""
        y = self.norm(self.first(x))
        crossed = y.unflatten(1, (self.groups, self.middle // self.groups)).transpose(1, 2).flatten(1, 2)
        out: Tensor = self.second(crossed)
        return out


@TRANSFORMS.register("xoperator")
@final
@dataclass(frozen=True)
class XOperator(Transform):
    """Replace bottlenecked convolutions by one of two readings of the X-operator; train the network again afterwards.

    `hourglass` replaces inverted residuals, bottlenecked dense layers, and every other convolution with a window whose
    channels mix, by `Hourglass` with a waist of min(inputs, outputs) / `reduction` (a multiple of 8). `crossed`
    replaces every pointwise convolution by `Crossed` with `groups` groups, or as many as divide both channel numbers.
    Layers that would not get cheaper stay.

    Guarantee: same shapes; not the same function. Source: definition inferred (arXiv 2209.00411, abstract).
    """

    slug: ClassVar[str] = "xoperator"
    needs: ClassVar[frozenset[str]] = frozenset({"retraining"})
    basis: ClassVar[str] = "definition inferred"

    variant: Variant = "hourglass"
    reduction: int = 2
    groups: int = 4
    skip: tuple[str, ...] = EDGES

    def __post_init__(self) -> None:
        """Refuse settings that make nothing cheaper."""
        if self.variant not in ("hourglass", "crossed") or self.reduction < 1 or self.groups < 3:
            raise ConfigError(
                "no such X-operator",
                expected="variant 'hourglass' or 'crossed', reduction from 1, groups from 3",
                came=f"{self.variant!r}, {self.reduction}, {self.groups}",
            )

    def apply(self, module: nn.Module) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return self._replaced(module)

    def _replaced(self, module: nn.Module) -> nn.Module:
        plain = {name: layer for name, layer in targets(module, self.skip).items() if isinstance(layer, nn.Conv2d)}
        new: dict[str, nn.Module] = {}
        if self.variant == "crossed":
            new.update({name: x for name, layer in plain.items() if (x := self._crossed(layer)) is not None})
            return replace_layers(module, new)
        kept = {name for name in self.skip if name not in EDGES}
        for name, block in module.named_modules():
            found = None if name in kept else self._block(block)
            new.update({name: found} if found is not None else {})
        inside = tuple(f"{name}." for name in new)
        loose = {name: layer for name, layer in plain.items() if not name.startswith(inside)} if inside else plain
        new.update({name: x for name, layer in loose.items() if (x := self._single(layer)) is not None})
        return replace_layers(module, new)

    def _waist(self, inputs: int, outputs: int) -> int:
        return divisible(min(inputs, outputs) / self.reduction)

    def _block(self, block: nn.Module) -> nn.Module | None:
        """Return the hourglass of a bottleneck block, or None for another module."""
        if isinstance(block, InvertedResidual):
            convs = [layer for layer in block.conv if isinstance(layer, nn.Conv2d)]
            inputs, outputs, middle = convs[0].in_channels, convs[-1].out_channels, convs[-2]
            waist = self._waist(inputs, outputs)
            if waist >= middle.out_channels:
                return None
            window = (_pair(middle.kernel_size), _pair(middle.stride), padding_of(middle))
            return he_normal(Hourglass(inputs, outputs, waist, *window, residual=block.residual))
        if isinstance(block, DenseLayer):
            convs = [layer for layer in block.body if isinstance(layer, nn.Conv2d)]
            inputs, growth = convs[0].in_channels, convs[-1].out_channels
            return he_normal(DenseHourglass(inputs, growth, self._waist(inputs, growth)))
        return None

    def _single(self, layer: nn.Conv2d) -> nn.Module | None:
        """Return the hourglass of one convolution, or None where it would not be cheaper."""
        inputs, outputs, window = layer.in_channels, layer.out_channels, math.prod(layer.kernel_size)
        waist = self._waist(inputs, outputs)
        fits = layer.groups == 1 and _pair(layer.dilation) == (1, 1) and layer.padding_mode == "zeros"
        if not fits or window == 1 or waist * (inputs + window + outputs) >= inputs * window * outputs:
            return None
        settings = (_pair(layer.kernel_size), _pair(layer.stride), padding_of(layer))
        return he_normal(Hourglass(inputs, outputs, waist, *settings, residual=False))

    def _crossed(self, layer: nn.Conv2d) -> nn.Module | None:
        """Return the crossed form of a pointwise convolution, or None where it would not be cheaper."""
        inputs, outputs = layer.in_channels, layer.out_channels
        groups = math.gcd(math.gcd(inputs, outputs), self.groups)
        pointwise = _pair(layer.kernel_size) == (1, 1) and layer.groups == 1 and padding_of(layer) == (0, 0)
        if not pointwise or min(inputs, outputs) * (inputs + outputs) >= inputs * outputs * groups:
            return None
        return he_normal(Crossed(inputs, outputs, groups, _pair(layer.stride), layer.bias is not None))


def _pair(setting: tuple[int, ...]) -> Pair:
    return int(setting[0]), int(setting[1])
