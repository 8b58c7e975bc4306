"""Layers that a transform left alone, read off the captured graph, each with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import Network, capture
from edgeward.graph.network import Node
from edgeward.train.population import Factory, build
from edgeward.transforms.transform import Derived, Transform, bypassed, depthwise

_FLOAT = ("conv2d", "linear")


def products_of(network: Network) -> tuple[Node, ...]:
    """Return the convolutions and dense layers of a captured network whose weights are float, in order."""
    return tuple(node for node in network.nodes if node.operator in _FLOAT)


def left_alone(module: nn.Module, network: Network, skip: Collection[str] = ()) -> dict[str, str]:
    """Return why each convolution or dense layer of `network`, captured from `module`, is still float.

    Args: `module` after its transform; `skip` as the transform was given it.
    Guarantee: complete, since it is read off the graph: also products that no layer of PyTorch stands for.
    """
    layers, beside = dict(module.named_modules()), bypassed(module)
    kept = {name: f"kept: {word}" for name, word in _kept(module, skip).items()}
    found: dict[str, str] = {}
    for node in products_of(network):
        name, layer = node.layer or node.name, layers.get(node.layer)
        found[name] = kept.get(name) or _reason(name, layer, beside)
    return found


def _kept(module: nn.Module, skip: Collection[str]) -> Mapping[str, str]:
    """Return the layers that a transform was told to keep, and how."""
    words = {"first": "the first layer", "last": "the last layer", "depthwise": "few products per sum (depthwise)"}
    names = [
        n for n, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and n not in bypassed(module)
    ]
    found = {name: "named in `skip`" for name in skip if name in names}
    found |= {
        name: words["depthwise"] for name in names if "depthwise" in skip and depthwise(module.get_submodule(name))
    }
    if names:
        found |= {names[0]: words["first"]} if "first" in skip else {}
        found |= {names[-1]: words["last"]} if "last" in skip else {}
    return found


def _reason(name: str, layer: nn.Module | None, beside: Collection[str]) -> str:
    if isinstance(layer, nn.MultiheadAttention) or name in beside:
        return "PyTorch's attention reads its weights itself: write it with nn.Linear"
    if isinstance(layer, Derived):
        return "its weight is also used outside of the layer's own product: give that use a layer of its own"
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        return "not chosen by the transform"
    kind = type(layer).__name__ if layer is not None else "the network"
    return f"computed by {kind} itself, not by a layer: use nn.Linear or nn.Conv2d"


def account(transform: Transform, factory: Factory, input_shape: tuple[int, ...], name: str) -> tuple[str, ...]:
    """Return one sentence with every layer that `transform` leaves in float, and why; none where it leaves none.

    Cost: one capture of an untrained network, so that it is known before training.
    Raises: `ModelError` with the same list where every layer is left: the result would be the float network.
    """
    module = build(transform.wrap(factory), Seed(0)).eval()
    network = capture(module, input_shape)
    skip = getattr(transform, "skip", ())
    left = left_alone(module, network, skip)
    changed = any(node.operator.startswith(("quantized_", "binary_")) for node in network.nodes)
    if not changed and not transform.lossless:
        listing = "\n    ".join(f"{layer}: {why}" for layer, why in left.items())
        raise ModelError(
            f"{name} would change no layer",
            expected="at least one convolution or dense layer that can be changed",
            came=f"left in float:\n    {listing}" if left else "a network without such layers",
            fix="change the layers above, or use another recipe",
        )
    return sentence(name, left)


def sentence(name: str, left: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sentence of a report about the layers that are left."""
    if not left:
        return ()
    listing = "; ".join(f"{layer} ({why})" for layer, why in left.items())
    return (f"{name} left {len(left)} layer{'s' if len(left) > 1 else ''} as trained: {listing}",)
