"""Structured pruning: remove whole output channels, so that every runtime gets a smaller dense network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.network import Network
from edgeward.train.population import Factory, Population, build
from edgeward.transforms.channels import ChannelGroup as ChannelGroup
from edgeward.transforms.channels import ChannelPlan, channel_groups
from edgeward.transforms.transform import depthwise, refresh


def channel_norms(population: Population, plan: ChannelPlan, count: int) -> Float[Tensor, "S count"]:
    """Return each channel's L2 norm over the rows of every layer that makes it, per model."""
    size = len(population)
    device = population.device
    squares = torch.zeros(size, count, device=device)
    for key in plan.producers:
        rows = population.held(key).detach().flatten(2).square().sum(2)
        labels = torch.tensor(next(labels for axis, labels in plan.axes[key] if axis == 0), device=device)
        squares.index_add_(1, labels, rows)
    return squares.sqrt()


def choose(population: Population, plan: ChannelPlan, fraction: float) -> Bool[Tensor, "S count"]:
    """Mark the channels to keep: in every group round(fraction * n) of the weakest go, at least one stays.

    Every model keeps its own strongest; counts are equal over models, ties go to the lower index.
    """
    count = 1 + max((label for held in plan.axes.values() for _, labels in held for label in labels), default=0)
    norms = channel_norms(population, plan, count)
    keep = torch.ones_like(norms, dtype=torch.bool)
    for group in plan.groups:
        labels = torch.tensor(group.channels, device=norms.device)
        stay = max(1, len(labels) - round(fraction * len(labels)))
        order = torch.sort(norms[:, labels], dim=1, descending=True, stable=True).indices
        keep.scatter_(1, labels[order[:, stay:]], False)
    return keep


def _cut(tensor: Tensor, axis: int, keep: Bool[Tensor, "S extent"]) -> Tensor:
    """Keep marked positions of `axis` (the model axis not counted), which are equally many in every model."""
    rows = [model.index_select(axis, mask.nonzero().squeeze(1)) for model, mask in zip(tensor, keep, strict=True)]
    return torch.stack(rows)


@final
@dataclass(frozen=True)
class Narrowed:
    """A factory whose modules have some tensors cut to given shapes, with the sizes of their layers set to match."""

    factory: Factory
    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self) -> nn.Module:
        """Build one module and cut it; contents are the leading entries, to be overwritten by a state dict."""
        module = self.factory()
        for key, shape in self.shapes.items():
            path, _, name = key.rpartition(".")
            layer = module.get_submodule(path)
            old = getattr(layer, name)
            cut = old.detach()[tuple(slice(extent) for extent in shape)].clone()
            setattr(layer, name, nn.Parameter(cut, old.requires_grad) if isinstance(old, nn.Parameter) else cut)
        for path in {key.rpartition(".")[0] for key in self.shapes}:
            _set_sizes(module.get_submodule(path))
        return module


def _set_sizes(layer: nn.Module) -> None:
    """Make the size attributes of a layer agree with its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv2d) and depthwise(layer):
        layer.out_channels = layer.in_channels = layer.groups = layer.weight.shape[0]
    elif isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
        layer.num_features = layer.running_mean.shape[0]


@torch.no_grad()
def prune_channels(
    population: Population, factory: Factory, network: Network, fraction: float
) -> tuple[Population, Factory]:
    """Remove a fraction of the channels of every group of a captured network, per model by L2 norm.

    Args:
        population: trained models; left as it is.
        factory: builds one of them.
        network: `graph.capture` of one of them (its structure is read, not its weights).
        fraction: share of each group's channels to remove, in [0, 1); 0 keeps every output exactly.

    Returns: the narrow population and the factory of its modules.
    Guarantee: checked on random records before returning, the narrow networks compute what the given ones compute once
    every reader of a removed channel reads zero (not checked for binary and k-bit layers, which round).
    Raises: `ConfigError` for a fraction outside [0, 1); `ModelError` when the module's code depends on channel numbers.
    Source: Li et al., ICLR 2017 (filter norms); dependencies as in `channel_groups`.
    """
    if not 0 <= fraction < 1:
        raise ConfigError("fraction of channels", expected="in [0, 1)", came=str(fraction), fix="use 0.3")
    plan = channel_groups(network)
    keep = choose(population, plan, fraction)
    cut: dict[str, Tensor] = {}
    thinned: dict[str, Tensor] = {}
    for key, held in plan.axes.items():
        source = population.params.get(key, population.buffers.get(key))
        if source is None:
            continue
        cut[key], thinned[key] = source.detach(), source.detach()
        for axis, labels in held:
            mask = keep[:, list(labels)]
            cut[key] = _cut(cut[key], axis, mask)
            if axis > 0:
                view = [len(mask), *(-1 if a == axis else 1 for a in range(source.dim() - 1))]
                thinned[key] = thinned[key] * mask.view(view)
    shapes = {key: tuple(t.shape[1:]) for key, t in cut.items() if t.shape != _of(population, key).shape}
    narrow_factory = Narrowed(factory, shapes)
    narrow = _assemble(population, narrow_factory, cut)
    if not any(node.operator.startswith(("binary", "quantized")) for node in network.nodes):
        _verify(_assemble(population, factory, thinned), narrow, network)
    return narrow, narrow_factory


def _of(population: Population, key: str) -> Tensor:
    return population.params[key] if key in population.params else population.buffers[key]


def _assemble(population: Population, factory: Factory, changed: Mapping[str, Tensor]) -> Population:
    """Return a copy of the population with a new template and some tensors changed."""
    params = {k: changed.get(k, t.detach()).clone() for k, t in population.params.items()}
    buffers = {k: changed.get(k, t).clone() for k, t in population.buffers.items()}
    new = Population(build(factory, Seed(0)), params, buffers)
    refresh(new)
    return new


def _verify(thinned: Population, narrow: Population, network: Network) -> None:
    """Compare the narrow networks with the given ones whose removed channels nobody reads."""
    generator = torch.Generator().manual_seed(0)
    device = narrow.device
    x = torch.randn(3, *network.input_shape(), generator=generator).to(device)
    try:
        expected, came = thinned.logits(x), narrow.logits(x)
        slack = 1e-5 + 1e-4 * float(expected.nan_to_num().abs().max())
        agree = expected.shape == came.shape and torch.allclose(expected, came, 1e-3, slack, equal_nan=True)
    except (RuntimeError, ValueError) as error:
        raise _rigid(str(error)) from error
    if not agree:
        raise _rigid(f"outputs of shape {tuple(came.shape)} that differ")


def _rigid(came: str) -> ModelError:
    return ModelError(
        "the network cannot be narrowed: its forward depends on channel numbers",
        expected="code that reads sizes from tensors: flatten(1), x.shape[1]",
        came=came.splitlines()[0][:200],
        fix="replace fixed sizes in view, chunk and slices of the forward method",
    )
