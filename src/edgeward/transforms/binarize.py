"""Binarisation: one-bit weights and activations in all layers but the first and the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.train.part import Context, Part
from edgeward.train.population import Population
from edgeward.transforms.binary_layers import BINARY, Rule, binary_layer
from edgeward.transforms.binary_layers import BinaryConv2d as BinaryConv2d
from edgeward.transforms.binary_layers import BinaryLinear as BinaryLinear
from edgeward.transforms.convolution import ill_padded
from edgeward.transforms.quantized_layers import quantized_layer
from edgeward.transforms.transform import (
    EDGES,
    TRANSFORMS,
    Transform,
    refresh,
    refuse,
    replace_layers,
    targets,
)


@TRANSFORMS.register("binarize")
@final
@dataclass(frozen=True)
class Binarize(Transform):
    """Replace layers by XNOR layers, each with its own BatchNorm before the sign; subclasses keep their own forward.

    Args:
        skip: layers left alone; "first" and "last" carry most accuracy, "depthwise" has too few operands per sum.
        edges_bits: 32 leaves the skipped first and last layer in float; 2..8 stores their weights with that many bits.
        rule: gradient of the latent weights, "xnor" or "clip"; see `binary_parts`.

    Train with the part `LatentProjection`. Biases of binarised layers are dropped.
    Source: Rastegari et al., XNOR-Net, ECCV 2016, sections 3.2 and 4.1 (first and last layers stay).
    """

    slug: ClassVar[str] = "binarize"
    needs: ClassVar[frozenset[str]] = frozenset({"retraining"})

    skip: tuple[str, ...] = (*EDGES, "depthwise")
    edges_bits: int = 32
    rule: Rule = "xnor"

    def __post_init__(self) -> None:
        """Refuse widths that no layer has."""
        if self.edges_bits != 32 and not 2 <= self.edges_bits <= 8:
            raise ConfigError("binarize.edges_bits", expected="2 to 8, or 32", came=str(self.edges_bits), fix="use 8")
        if self.rule not in ("xnor", "clip"):
            raise ConfigError("binarize.rule", expected="'xnor' or 'clip'", came=repr(self.rule), fix="use 'xnor'")

    def apply(self, module: nn.Module) -> nn.Module:
        chosen = targets(module, self.skip, subclasses=True)
        if not chosen:
            raise ModelError(
                "no layer is left to binarise",
                expected=f"Linear or Conv2d layers besides {', '.join(self.skip)}",
                came=f"{len(targets(module, (), subclasses=True))} such layers in all",
                fix="use a deeper network or Binarize(skip=())",
            )
        edges = self._edges(module)
        refuse("binarisation", ill_padded({**chosen, **edges}), "change the padding of the layers above")
        new: dict[str, nn.Module] = {name: quantized_layer(layer, self.edges_bits, 32) for name, layer in edges.items()}
        new.update({name: binary_layer(layer, self.rule) for name, layer in chosen.items()})
        return replace_layers(module, new)

    def _edges(self, module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
        """Return the skipped first and last layers, if they are to be quantised."""
        if self.edges_bits == 32:
            return {}
        inner = targets(module, tuple(name for name in self.skip if name in EDGES), subclasses=True)
        return {name: layer for name, layer in targets(module, (), subclasses=True).items() if name not in inner}


@torch.no_grad()
def project(population: Population) -> None:
    """Project latent weights as XNOR-Net does, and refresh the scales: call after every optimiser step.

    Convolutions are centred over their input channels (where there are several), then every latent weight is clamped
    to [-1, 1], where the straight-through gradient is alive.
    """
    for name, layer in population.template.named_modules():
        if isinstance(layer, BINARY):
            weight = population.params.get(f"{name}.weight" if name else "weight")
            if weight is None:  # frozen, or tied to a layer that comes first
                continue
            if weight.dim() == 5 and weight.shape[2] > 1:
                weight.sub_(weight.mean(dim=2, keepdim=True))
            weight.clamp_(-1.0, 1.0)
    refresh(population)


@final
@dataclass(frozen=True)
class LatentProjection(Part):
    """Keeps the latent weights of binary layers centred and in [-1, 1], and their scales fresh."""

    slug: ClassVar[str] = "latent_projection"

    def prepare(self, context: Context, population: Population) -> None:
        project(population)

    def on_step(self, context: Context, population: Population) -> None:
        project(population)
