"""`to_module`: a network becomes a trainable `nn.Module` of standard layers again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from edgeward.graph.network import CONSTANT, FOLDED, Network, Node
from edgeward.graph.semantics import apply

Build: TypeAlias = "Callable[[Mapping[str, Any], Mapping[str, Tensor], int], nn.Module]"

# What the standard layers call the tensors of each role.
_LAYER_NAMES = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def to_module(network: Network) -> Rebuilt:
    """Rebuild a trainable module whose layers are `nn.Conv2d`, `nn.Linear`, `nn.BatchNorm*`, `nn.LayerNorm`, ...

    Layers sit at the paths they were captured from, so that the state dict has the keys of the original wherever its
    layers were standard ones; `reset_parameters` of each layer starts training anew. Quantised and binary layers are
    rebuilt as their inference arithmetic, whose rounding and signs carry no gradient.

    Returns: a module in eval mode that maps [n, ...] (one argument for each input of the network, in order) to the
    output, or to a tuple where there are several.
    Guarantee: equals `ReferenceExecutable(network)` up to float32 rounding. Cost: one copy of the tensors.
    """
    return Rebuilt(network).eval()


def tensors_of(module: Rebuilt) -> dict[str, Tensor]:
    """Return what a rebuilt module holds now, under the keys of the network it was built from."""
    found = {}
    for node, path in module.steps():
        layer = module.get_submodule(path)
        names = {role: role for role in node.tensors} if isinstance(layer, _Held) else _LAYER_NAMES
        found.update({key: getattr(layer, names[role]).detach().clone() for role, key in node.tensors.items()})
    return found


@final
class Rebuilt(nn.Module):
    """A network as a module: runs the nodes in order on the layers it holds."""

    def __init__(self, network: Network) -> None:
        """Build and place one layer per node that holds tensors; nodes that share tensors share the layer."""
        super().__init__()
        self._network_outputs, self._network_inputs = network.outputs, network.inputs
        self._steps: list[tuple[Node, str | None]] = []
        placed: dict[tuple[str, ...], str] = {}
        for number, node in enumerate(network.nodes):
            identity = (node.operator, *sorted(node.tensors.values()), str(sorted(node.attributes.items())))
            if node.tensors and identity not in placed:
                placed[identity] = _place(self, network, node, number)
            self._steps.append((node, placed.get(identity)))
        self._shapes = {node.name: network.values[node.output].shape for node in network.nodes}

    def steps(self) -> list[tuple[Node, str]]:
        """Return every node that holds tensors, with the path of its layer."""
        return [(node, path) for node, path in self._steps if path is not None]

    def forward(self, *records: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the output for records [n, ...], one tensor for each input of the network."""
        values = dict(zip(self._network_inputs, records, strict=True))
        for node, path in self._steps:
            inputs = [values[name] for name in node.inputs]
            layer = None if path is None else self.get_submodule(path)
            if layer is not None and not isinstance(layer, _Held):
                values[node.output] = layer(inputs[0])
            else:
                held = {} if layer is None else {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
                values[node.output] = apply(node, held, inputs, self._shapes[node.name], records[0].shape[0])
        found = tuple(values[name] for name in self._network_outputs)
        return found[0] if len(found) == 1 else found


def _place(root: nn.Module, network: Network, node: Node, number: int) -> str:
    tensors = {role: network.tensor(node, role) for role in node.tensors}
    rank = len(network.values[node.output].shape)
    layer = _BUILD[node.operator](node.attributes, tensors, rank) if node.operator in _BUILD else _Held(network, node)
    _keep_fixed(layer, network, node)
    path = _path(root, node) or f"nodes.{number}_{node.operator}"
    parent = root
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(parent, name):
            parent.add_module(name, nn.Module())
        parent = parent.get_submodule(name)
    parent.add_module(last, layer)
    return path


def _keep_fixed(layer: nn.Module, network: Network, node: Node) -> None:
    """Turn parameters of a layer that training must not change (a fixed normalisation of pixels) into buffers."""
    for role, key in node.tensors.items():
        name = _LAYER_NAMES.get(role, role)
        learned = key in network.parameters or key.startswith(FOLDED) or not network.parameters
        if not learned and name in layer._parameters:
            tensor = layer._parameters.pop(name)
            layer.register_buffer(name, None if tensor is None else tensor.detach())


def _path(root: nn.Module, node: Node) -> str | None:
    """Return where a standard layer with exactly this node's keys belongs, if that place is free."""
    keys = node.tensors.items()
    computed = any(key.startswith((CONSTANT, FOLDED)) for _, key in keys)
    paths = {node.layer} if computed else {key.rpartition(".")[0] for _, key in keys}
    named = computed or all(key.rpartition(".")[2] == _LAYER_NAMES.get(role) for role, key in keys)
    path = next(iter(paths))
    taken = any(name == path or name.startswith(f"{path}.") for name, _ in root.named_modules())
    standard = node.operator in _BUILD and named and len(paths) == 1
    return path if standard and path and not taken else None


@final
class _Held(nn.Module):
    """The tensors of a node that has no standard layer: parameters where training may change them, else buffers."""

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__()
        for role, key in node.tensors.items():
            tensor = network.tensors[key].clone()
            if key in network.parameters:
                self.register_parameter(role, nn.Parameter(tensor))
            else:
                self.register_buffer(role, tensor)


def _filled(layer: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    with torch.no_grad():
        for role, tensor in tensors.items():
            getattr(layer, _LAYER_NAMES[role]).copy_(tensor)
    return layer


def _conv2d(a: Mapping[str, Any], t: Mapping[str, Tensor], rank: int) -> nn.Module:
    outputs, inputs, *kernel = t["weight"].shape
    window = (a["stride"], a["padding"], a["dilation"], a["groups"])
    return _filled(nn.Conv2d(inputs * a["groups"], outputs, (kernel[0], kernel[1]), *window, bias="bias" in t), t)


def _linear(a: Mapping[str, Any], t: Mapping[str, Tensor], rank: int) -> nn.Module:
    outputs, inputs = t["weight"].shape
    return _filled(nn.Linear(inputs, outputs, bias="bias" in t), t)


def _batch_norm(a: Mapping[str, Any], t: Mapping[str, Tensor], rank: int) -> nn.Module:
    kind = nn.BatchNorm2d if rank == 3 else nn.BatchNorm1d
    return _filled(kind(len(t["mean"]), eps=a["epsilon"]), t)


def _layer_norm(a: Mapping[str, Any], t: Mapping[str, Tensor], rank: int) -> nn.Module:
    layer = nn.LayerNorm(a["shape"], eps=a["epsilon"], elementwise_affine="weight" in t, bias="bias" in t)
    return _filled(layer, t)


def _group_norm(a: Mapping[str, Any], t: Mapping[str, Tensor], rank: int) -> nn.Module:
    return _filled(nn.GroupNorm(a["groups"], len(t["weight"]), eps=a["epsilon"]), t)


_BUILD: Mapping[str, Build] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}
