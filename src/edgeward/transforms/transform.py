"""`Transform`: a frozen setting that changes the operators of a network, and the rules for choosing layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import vmap

from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.registry import Registry
from edgeward.train.part import Context, Part
from edgeward.train.population import Factory, Population

EDGES = ("first", "last")
NEEDS = frozenset({"calibration", "retraining", "labels"})


class Transform(ABC):
    """A change of a network's operators; subclasses are final frozen dataclasses.

    `exact` says whether every setting keeps every output; `lossless` whether this setting does. `needs` names what must
    follow before the network is useful: "calibration", "retraining", "labels".
    """

    slug: ClassVar[str]
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def apply(self, module: nn.Module) -> nn.Module:
        """Return `module` with changed layers; `module` itself may be changed and should not be used afterwards.

        State-dict keys of kept tensors keep their names. Raises `ModelError` naming every layer that does not fit.
        """

    @property
    def lossless(self) -> bool:
        """Whether these settings keep every output up to rounding."""
        return self.exact

    def wrap(self, factory: Factory) -> Factory:
        """Return a factory whose modules are transformed; picklable when `factory` is."""
        return Transformed(factory, self)


TRANSFORMS: Registry[type[Transform]] = Registry("transform")


@final
@dataclass(frozen=True)
class Transformed:
    """A factory followed by a transform."""

    factory: Factory
    transform: Transform

    def __call__(self) -> nn.Module:
        """Build and transform one module."""
        return self.transform.apply(self.factory())


class Derived(nn.Module, ABC):
    """A layer whose buffers follow from its weight (scales): stored, so that a state dict is all an exporter needs.

    Guarantee: after a training forward or `refresh` the stored values belong to the weight of that moment; an optimiser
    step makes them stale, which `refresh` mends.
    """

    weight: Tensor

    @abstractmethod
    def derive(self, weight: Tensor, *beside: Tensor) -> dict[str, Tensor]:
        """Return the buffers that follow from `weight` and the tensors that `beside` names, all or none of them.

        No branch on tensor values, so that it runs under vmap.
        """

    def beside(self) -> tuple[str, ...]:
        """Return the names of the layer's other tensors that `derive` takes; by default none."""
        return ()

    @torch.no_grad()
    def settle(self) -> None:
        """Write the derived buffers of this module's own weight; of one that is computed anew each time, none."""
        if "weight" not in self._parameters:
            return
        others = [getattr(self, name).detach() for name in self.beside()]
        for name, value in self.derive(self.weight.detach(), *others).items():
            self.get_buffer(name).copy_(value)


def derived_buffers(population: Population) -> dict[str, Tensor]:
    """Return every derived buffer by name, computed from the weights of `population` [S, ...]."""
    found = {}
    for name, layer in population.template.named_modules():
        if isinstance(layer, Derived) and "weight" in layer._parameters:
            prefix = f"{name}." if name else ""
            held = [population.held(f"{prefix}{key}").detach() for key in ("weight", *layer.beside())]
            derived = vmap(layer.derive)(*held)
            found.update({prefix + key: value for key, value in derived.items()})
    return found


@torch.no_grad()
def refresh(population: Population) -> None:
    """Recompute every derived buffer of `population` from its weights; call it before evaluating or exporting."""
    for name, value in derived_buffers(population).items():
        population.buffers[name].copy_(value)


@final
@dataclass(frozen=True)
class FreshScales(Part):
    """Keeps derived buffers true to the weights after every optimiser step, so that evaluation sees what ships."""

    slug: ClassVar[str] = "fresh_scales"

    def on_step(self, context: Context, population: Population) -> None:
        refresh(population)


def depthwise(layer: nn.Module) -> bool:
    """Return whether `layer` is a convolution that never mixes channels."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels


def plain(layer: nn.Module) -> bool:
    """Return whether a layer does no more than PyTorch's Linear or Conv2d: no subclass, hook or computed weight."""
    own = type(layer) in (nn.Linear, nn.Conv2d) and "weight" in layer._parameters
    return own and not (layer._forward_hooks or layer._forward_pre_hooks)


def bypassed(module: nn.Module) -> set[str]:
    """Return the names of layers inside PyTorch's attention, which reads their weights and never calls them."""
    inside = [name for name, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)]
    return {f"{name}.out_proj" if name else "out_proj" for name in inside}


def targets(
    module: nn.Module, skip: Sequence[str] = EDGES, *, subclasses: bool = False
) -> dict[str, nn.Linear | nn.Conv2d]:
    """Select Linear and Conv2d layers by qualified name, in registration order.

    Args:
        module: the network; already transformed layers and layers inside attention modules are not selected.
        skip: "first", "last", "depthwise", or qualified names of layers to leave alone.
        subclasses: whether to select layers of subclasses too; else those of exactly these two types.

    Raises:
        ConfigError: `skip` names a layer that the network does not have.
    """
    beside = bypassed(module)
    names: dict[str, nn.Linear | nn.Conv2d] = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
        and (type(layer) in (nn.Linear, nn.Conv2d) or (subclasses and not isinstance(layer, Derived)))
        and name not in beside
    }
    order = list(names)
    known = {name for name, _ in module.named_modules()}
    unknown = [name for name in skip if name not in (*EDGES, "depthwise") and name not in known]
    if unknown:
        raise ConfigError(
            f"skip names {len(unknown)} unknown layers",
            expected=f"'first', 'last', 'depthwise' or one of {', '.join(order[:8])}",
            came=", ".join(map(repr, unknown)),
            fix="print `dict(module.named_modules())` for the names",
        )
    left = set(skip)
    left |= {order[0]} if "first" in skip and order else set()
    left |= {order[-1]} if "last" in skip and order else set()
    left |= {name for name in order if "depthwise" in skip and depthwise(names[name])}
    return {name: layer for name, layer in names.items() if name not in left}


def replace_layers(module: nn.Module, replacements: dict[str, nn.Module]) -> nn.Module:
    """Return `module` with layers replaced by qualified name; a layer registered twice is replaced twice."""
    new = {id(module.get_submodule(name)): layer for name, layer in replacements.items()}
    if id(module) in new:
        return new[id(module)]
    for parent in list(module.modules()):
        for child, layer in list(parent._modules.items()):  # named_children hides repeated layers
            if layer is not None and id(layer) in new:
                setattr(parent, child, new[id(layer)])
    return module


def refuse(kind: str, problems: Iterable[str], fix: str) -> None:
    """Raise one `ModelError` with all problems, if there are any."""
    listing = list(problems)
    if listing:
        shown = "\n    ".join(listing)
        raise ModelError(f"{kind} does not fit {len(listing)} layers:\n    {shown}", fix=fix)


def transform_population(population: Population, factory: Factory, transform: Transform) -> tuple[Population, Factory]:
    """Transform trained models one by one: each keeps its own weights and buffers.

    Returns: the transformed population and the factory of its modules.
    """
    models = [transform.apply(population.member(index, factory)) for index in range(len(population))]
    changed = Population.stack(models, str(population.device))
    refresh(changed)
    return changed, transform.wrap(factory)
