"""ShadowNet: convolutions run outside on kernels that are scaled, masked and shuffled; the secure world restores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from edgeward.attacks.extraction.exposure import Exposure, Obfuscation, learned_keys
from edgeward.backends.tee.deployment import Traffic
from edgeward.core.randomness import Seed
from edgeward.graph.network import Network, Node
from edgeward.graph.semantics import apply
from edgeward.recipes.splits.split import SPLITS, Split, Subject, feature_bytes


@final
@dataclass(frozen=True)
class ShadowLayer:
    """One disguised convolution: what is shown, and the secrets that restore its result.

    Shown kernel `place[o]` is factor[o] W[o] + mask[used[o]]; shown kernel `masks[m]` is mask m itself.
    """

    shown: Float[Tensor, "R ..."]
    place: Int64[Tensor, " O"]
    masks: Int64[Tensor, " f"]
    used: Int64[Tensor, " O"]
    factor: Float[Tensor, " O"]

    @classmethod
    def of(cls, weight: Float[Tensor, "O ..."], seed: Seed, *, ratio: float = 1.25) -> ShadowLayer:
        """Disguise `weight`: factors in +-[0.5, 2], uniform masks as large as its largest entry, secret order.

        Larger masks would hide no more and cost the precision of the restored result.
        """
        generator, rows = seed.torch(), len(weight)
        count = max(1, int(ratio * rows) - rows)
        bound = float(weight.abs().max())
        mask = (2 * torch.rand(count, *weight.shape[1:], generator=generator) - 1) * bound
        sign = torch.randint(0, 2, (rows,), generator=generator) * 2.0 - 1
        factor = sign * (0.5 + 1.5 * torch.rand(rows, generator=generator))
        used = torch.randint(0, count, (rows,), generator=generator)
        kernels = weight * factor.view(-1, *[1] * (weight.dim() - 1)) + mask[used]
        order = torch.randperm(rows + count, generator=generator)
        where = order.argsort()
        return cls(torch.cat([kernels, mask])[order], where[:rows], where[rows:], used, factor)

    def restored(self, y: Float[Tensor, "n R h w"]) -> Float[Tensor, "n O h w"]:
        """Return the true result from the disguised one: (y[place] - y[mask]) / factor."""
        return (y[:, self.place] - y[:, self.masks[self.used]]) / self.factor.view(1, -1, 1, 1)


def disguised(victim: Network, seed: Seed) -> dict[str, ShadowLayer]:
    """Return the disguise of every convolution that mixes channels, by the key of its weight."""
    layers = [node for node in victim.nodes if node.operator == "conv2d" and node.attributes["groups"] == 1]
    return {
        node.tensors["weight"]: ShadowLayer.of(victim.tensor(node, "weight"), seed.child("shadow", node.name))
        for node in layers
    }


@torch.no_grad()
def run_disguised(victim: Network, layers: Mapping[str, ShadowLayer], x: Float[Tensor, "n ..."]) -> Tensor:
    """Return the logits as the two worlds compute them together: float32 convolutions on what is shown, restored."""
    values = {victim.inputs[0]: x}
    for node in victim.nodes:
        held = {role: victim.tensors[key] for role, key in node.tensors.items()}
        key = node.tensors.get("weight", "")
        if key in layers:
            values[node.output] = _convolved(node, held, layers[key], values[node.inputs[0]])
        else:
            shape = victim.values[node.output].shape
            values[node.output] = apply(node, held, [values[v] for v in node.inputs], shape, len(x))
    return values[victim.outputs[-1]]


def _convolved(node: Node, held: Mapping[str, Tensor], layer: ShadowLayer, x: Tensor) -> Tensor:
    a = node.attributes
    y = layer.restored(F.conv2d(x, layer.shown, None, a["stride"], a["padding"], a["dilation"], a["groups"]))
    return y + held["bias"].view(1, -1, 1, 1) if "bias" in held else y


@SPLITS.register("shadownet")
def shadownet(subject: Subject) -> Split:
    """Show every convolution in disguise; the secure world restores each result and does the rest: audited, not run.

    Guarantee: none against an attacker with a public prior of the weights, which the audit has. The restored logits
    equal the victim's up to float32 rounding.
    Source: Sun et al., ShadowNet, S&P 2023.
    """
    victim = subject.victim
    layers = disguised(victim, subject.seed)
    masked = {key: Obfuscation(masks=len(layer.masks), permuted=True, scaled=True) for key, layer in layers.items()}
    shown = {key: layer.shown for key, layer in layers.items()}
    exposure = Exposure("shadownet", victim, shown, dict(subject.public), masked)
    nodes = [node for node in victim.nodes if node.tensors.get("weight") in layers]
    outward = sum(feature_bytes(victim, node.inputs[0]) for node in nodes)
    inward = sum(
        len(layers[n.tensors["weight"]].shown) * victim.values[n.output].elements // victim.values[n.output].shape[0]
        for n in nodes
    )
    hidden = [key for key in learned_keys(victim) if key not in layers]
    held = sum(victim.tensors[key].numel() for key in hidden) + sum(2 * len(layer.place) for layer in layers.values())
    traffic = Traffic(False, len(nodes), inward, outward)
    return Split("shadownet", exposure, traffic, held, notes=("features return after every layer: audited, not run",))
