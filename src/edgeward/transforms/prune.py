"""Unstructured pruning: masks that keep the largest weights, per model of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.network import Network
from edgeward.train.part import Context, Part
from edgeward.train.population import Population
from edgeward.transforms.binary_layers import BINARY
from edgeward.transforms.density import ErdosRenyiKernel
from edgeward.transforms.leftover import products_of
from edgeward.transforms.transform import refresh

Scope = Literal["layer", "global", "erk"]
Masks = dict[str, Bool[Tensor, "S ..."]]


def prunable(population: Population, skip: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the stacked weights [S, out, in, ...] of Linear and Conv2d layers but those whose layer is in `skip`.

    Biases and normalisation are never pruned, nor are binary layers: the sign of a zero weight is +1.
    Raises `ConfigError` when `skip` names no such layer.
    """
    names = [
        name
        for name, layer in population.template.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not isinstance(layer, BINARY)
    ]
    unknown = [name for name in skip if name not in names]
    if unknown:
        raise ConfigError(
            f"skip names {len(unknown)} layers that have no prunable weight",
            expected=f"some of {', '.join(names[:8])}",
            came=", ".join(map(repr, unknown)),
            fix="remove the names from `skip`",
        )
    keys = [f"{name}.weight" if name else "weight" for name in names if name not in skip]
    return {key: population.params[key].detach() for key in keys if key in population.params}


def weight_keys(network: Network, population: Population) -> tuple[list[str], dict[str, str]]:
    """Return the parameters that hold the weights of the float products of `network`, and why others are left dense.

    `network` is the captured structure of the population: what counts is where a weight is used, not whose it is.
    Raises `ModelError` with all reasons when no weight can be pruned.
    """
    keys, left = [], {}
    for node in products_of(network):
        key = node.tensors["weight"]
        if key in population.params:
            keys.append(key)
        else:
            stored = key in population.buffers
            left[node.layer or node.name] = "its weight is frozen" if stored else "its weight is computed, not stored"
    keys = list(dict.fromkeys(keys))
    if not keys:
        listing = "\n    ".join(f"{layer}: {why}" for layer, why in left.items())
        raise ModelError(
            "pruning would change no layer",
            expected="a convolution or dense layer whose weight is trained",
            came=f"left dense:\n    {listing}" if left else "a network without such layers",
            fix="unfreeze the weights above, or use another recipe",
        )
    return keys, left


def _largest(scores: Tensor, keep: int) -> Tensor:
    """Mark the `keep` largest of each row of [S, n]; equal scores are kept in index order."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :keep], True)


def kept(total: int, sparsity: float) -> int:
    """Return how many of `total` weights stay: total - round(sparsity * total)."""
    if not 0 <= sparsity < 1:
        raise ConfigError("sparsity", expected="in [0, 1)", came=str(sparsity), fix="use 0.9 for 90 % zeros")
    return total - round(sparsity * total)


def masks_of(weights: Mapping[str, Tensor], sparsity: float, scope: Scope) -> Masks:
    """Mark the weights of largest magnitude; see `magnitude_masks`."""
    flat = {name: weight.abs().flatten(1) for name, weight in weights.items()}
    if scope == "global":
        joint = torch.cat(list(flat.values()), dim=1)
        widths = [scores.shape[1] for scores in flat.values()]
        pieces = torch.split(_largest(joint, kept(joint.shape[1], sparsity)), widths, dim=1)
        return {name: piece.reshape(weights[name].shape) for name, piece in zip(flat, pieces, strict=True)}
    if scope == "erk":
        shapes = {name: tuple(weight.shape[1:]) for name, weight in weights.items()}
        kept(1, sparsity)
        counts = ErdosRenyiKernel(1 - sparsity).counts(shapes)
    else:
        counts = {name: kept(f.shape[1], sparsity) for name, f in flat.items()}
    return {name: _largest(f, counts[name]).view(weights[name].shape) for name, f in flat.items()}


def magnitude_masks(
    population: Population,
    sparsity: float,
    scope: Scope = "layer",
    skip: Sequence[str] = (),
    keys: Sequence[str] | None = None,
) -> Masks:
    """Return masks [S, ...] by parameter name that keep each model's weights of largest magnitude.

    Args:
        sparsity: fraction of zeros in [0, 1), of each layer ("layer"), of all weights with one threshold ("global"), or
            of all weights shared out by Erdős–Rényi-kernel densities ("erk").
        skip: qualified names of layers left dense.
        keys: the parameters to prune, as `weight_keys` finds them; by default those that `prunable` finds.

    Guarantee: the number of kept weights is exact; equal magnitudes are kept in index order, so equal weights give
    equal masks. Source: Han et al., NeurIPS 2015, section 3.
    """
    weights = prunable(population, skip) if keys is None else {key: population.params[key].detach() for key in keys}
    return masks_of(weights, sparsity, scope)


def random_masks(
    population: Population, sparsity: float, seeds: Sequence[Seed], scope: Scope = "erk", skip: Sequence[str] = ()
) -> Masks:
    """Return masks of random positions, one seed per model: the start of sparse training from scratch."""
    weights = prunable(population, skip)
    scores = {}
    for name, weight in weights.items():
        draws = [torch.rand(weight.shape[1:], generator=seed.child("mask", name).torch()) for seed in seeds]
        scores[name] = torch.stack(draws).to(weight.device)
    return masks_of(scores, sparsity, scope)


@torch.no_grad()
def impose(population: Population, masks: Mapping[str, Tensor]) -> None:
    """Set masked weights to zero, and refresh what follows from the weights."""
    for name, mask in masks.items():
        population.params[name].masked_fill_(~mask, 0.0)
    refresh(population)


@final
@dataclass(frozen=True)
class Masked(Part):
    """Trains sparse networks: masked weights are zero before the first and after every step.

    Masks live in `context.memory` under "mask/<parameter>"; those already there (resumed, or changed by a part that
    drops and grows) win, then `masks`, then magnitude (or random) masks of the population at the start.
    """

    slug: ClassVar[str] = "masked"

    masks: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)
    sparsity: float = 0.9
    scope: Scope = "layer"
    start: Literal["magnitude", "random"] = "magnitude"
    skip: tuple[str, ...] = ()

    def prepare(self, context: Context, population: Population) -> None:
        if not any(key.startswith("mask/") for key in context.memory):
            masks = self.masks
            if masks is None and self.start == "random":
                masks = random_masks(population, self.sparsity, context.seeds, self.scope, self.skip)
            elif masks is None:
                masks = magnitude_masks(population, self.sparsity, self.scope, self.skip)
            context.memory.update({f"mask/{name}": mask for name, mask in masks.items()})
        self.on_step(context, population)

    def on_step(self, context: Context, population: Population) -> None:
        masks = {key[len("mask/") :]: mask for key, mask in context.memory.items() if key.startswith("mask/")}
        impose(population, masks)

    def settings(self) -> Mapping[str, object]:
        return {key: value for key, value in vars(self).items() if key != "masks"}
