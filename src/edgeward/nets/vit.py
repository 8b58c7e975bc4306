"""A small vision transformer."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.nets.registry import NETS


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v; one operator where the network is captured, written out where vmap must see it."""
    if torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(query, key, value)
    return torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1) @ value


@final
class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dimension: int, heads: int) -> None:
        """Create the projections."""
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dimension, 3 * dimension)
        self.mix = nn.Linear(dimension, dimension)

    def forward(self, x: Float[Tensor, "n t d"]) -> Tensor:
        """Return the mixed tokens."""
        count, tokens, dimension = x.shape
        parts = self.project(x).reshape(count, tokens, 3, self.heads, dimension // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _attend(query, key, value)
        answer: Tensor = self.mix(mixed.transpose(1, 2).reshape(count, tokens, dimension))
        return answer


@final
class EncoderBlock(nn.Module):
    """Pre-normalised attention and perceptron, each with a residual."""

    def __init__(self, dimension: int, heads: int, expansion: int) -> None:
        """Create the block."""
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dimension), SelfAttention(dimension, heads)
        self.norm2 = nn.LayerNorm(dimension)
        wide = expansion * dimension
        self.perceptron = nn.Sequential(nn.Linear(dimension, wide), nn.GELU(), nn.Linear(wide, dimension))

    def forward(self, x: Float[Tensor, "n t d"]) -> Tensor:
        """Return the block's tokens."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.perceptron(self.norm2(x))
        return y


@final
class VisionTransformer(nn.Module):
    """Patches, a class token, positions, encoder blocks, and a linear head on the class token."""

    def __init__(
        self, channels: int, size: int, patch: int, dimension: int, depth: int, heads: int, expansion: int, classes: int
    ) -> None:
        """Create the network."""
        super().__init__()
        tokens = (size // patch) ** 2
        self.patches = nn.Conv2d(channels, dimension, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dimension))
        self.position = nn.Parameter(torch.empty(1, tokens + 1, dimension))
        self.blocks = nn.Sequential(*(EncoderBlock(dimension, heads, expansion) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dimension), nn.Linear(dimension, classes)
        nn.init.trunc_normal_(self.position, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the logits."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


@NETS.register("vit")
def vit(
    channels: int = 3,
    size: int = 32,
    patch: int = 4,
    dimension: int = 64,
    depth: int = 4,
    heads: int = 4,
    expansion: int = 2,
    classes: int = 10,
) -> nn.Module:
    """Return a small vision transformer.

    Shapes: [n, channels, size, size] -> logits [n, classes]; `patch` divides `size`, `heads` divides `dimension`.
    Source: Dosovitskiy et al., arXiv 2010.11929, section 3.1; weights from N(0, 0.02) truncated, as in its code.
    """
    if size % patch or dimension % heads:
        raise ModelError(
            "the transformer's dimensions do not divide",
            expected="patch divides size, heads divide dimension",
            came=f"size {size}, patch {patch}, dimension {dimension}, heads {heads}",
            fix="for instance size 32, patch 4, dimension 64, heads 4",
        )
    return VisionTransformer(channels, size, patch, dimension, depth, heads, expansion, classes)
