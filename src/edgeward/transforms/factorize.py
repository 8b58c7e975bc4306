"""Low rank: a layer as two thinner ones, by truncated singular value decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ConfigError
from edgeward.transforms.transform import EDGES, TRANSFORMS, Transform, replace_layers, targets


def low_rank(
    matrix: Float[Tensor, "out inner"], rank: int
) -> tuple[Float[Tensor, "rank inner"], Float[Tensor, "out rank"]]:
    """Return (down, up) with up @ down the best approximation of `matrix` of that rank in Frobenius norm.

    Cost: O(out inner min(out, inner)) once. Source: Eckart and Young, 1936; the singular values are split evenly.
    """
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:rank]).to(matrix.dtype), (left[:, :rank] * root).to(matrix.dtype)


@TRANSFORMS.register("factorize")
@final
@dataclass(frozen=True)
class Factorize(Transform):
    """Split layers of weight [out, in] into in -> rank -> out, with rank a fraction of min(out, in).

    A convolution becomes one with `rank` filters of the same window and a 1x1 convolution. Layers whose two halves
    would hold no fewer weights than the layer are left alone, unless `fraction` is 1: then every layer is split
    without loss, up to rounding. Convolutions with groups are left alone.

    State: "<layer>.0.weight" [rank, in, ...], "<layer>.1.weight" [out, rank, ...], "<layer>.1.bias".
    Apply it to trained networks through `transform_population`. Source: Denton et al., NeurIPS 2014, section 3.
    """

    slug: ClassVar[str] = "factorize"
    needs: ClassVar[frozenset[str]] = frozenset({"retraining"})

    fraction: float = 0.25
    skip: tuple[str, ...] = EDGES

    def __post_init__(self) -> None:
        """Refuse fractions outside (0, 1]."""
        if not 0 < self.fraction <= 1:
            raise ConfigError("factorize.fraction", expected="in (0, 1]", came=str(self.fraction), fix="use 0.25")

    @property
    def lossless(self) -> bool:
        return self.fraction == 1

    @torch.no_grad()
    def apply(self, module: nn.Module) -> nn.Module:
        new: dict[str, nn.Module] = {}
        for name, layer in targets(module, self.skip).items():
            out, inner = layer.weight.shape[0], math.prod(layer.weight.shape[1:])
            rank = max(1, math.ceil(self.fraction * min(out, inner)))
            if self.fraction == 1 or rank * (out + inner) < out * inner:
                halves = _split_conv(layer, rank) if isinstance(layer, nn.Conv2d) else _split_linear(layer, rank)
                new.update({name: halves} if halves is not None else {})
        return replace_layers(module, new)


def _split_linear(layer: nn.Linear, rank: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        down = nn.Linear(layer.in_features, rank, bias=False)
        up = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    first, second = low_rank(layer.weight, rank)
    return _filled(layer, down, up, first, second)


def _split_conv(layer: nn.Conv2d, rank: int) -> nn.Sequential | None:
    if layer.groups != 1:
        return None
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    with torch.random.fork_rng(devices=[]):
        down = nn.Conv2d(layer.in_channels, rank, *window, bias=False, padding_mode=layer.padding_mode)  # type: ignore[arg-type]
        up = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    first, second = low_rank(layer.weight.flatten(1), rank)
    return _filled(layer, down, up, first.view(down.weight.shape), second.view(up.weight.shape))


def _filled(
    layer: nn.Linear | nn.Conv2d, down: nn.Linear | nn.Conv2d, up: nn.Linear | nn.Conv2d, first: Tensor, second: Tensor
) -> nn.Sequential:
    """Return the two halves with their weights, on the device and in the mode of `layer`."""
    down.weight.copy_(first)
    up.weight.copy_(second)
    if layer.bias is not None and up.bias is not None:
        up.bias.copy_(layer.bias)
    return nn.Sequential(down, up).to(layer.weight.device).train(layer.training)
