"""`Exposure`: what the owner of a device reads of a split network, and how much of it was disguised."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.network import CONSTANT, FOLDED, Network, Node

_LAYER_ROLES, _STATISTICS = ("weight", "bias", "scale"), ("mean", "variance")

# Operators that keep channels apart and in order, between a layer's outputs and the next layer's inputs.
_CHANNELWISE: tuple[str, ...] = (
    "relu",
    "clip",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
)
_CHANNELWISE += ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "reshape", "identity")


@final
@dataclass(frozen=True)
class Obfuscation:
    """What everybody knows of how a visible tensor was changed; its secrets (orders, factors) are not in here.

    `masks`: this many rows are random masks, one of which is added to each kernel; `permuted`: rows are in a secret
    order (masks among them; otherwise the masks come last); `scaled`: kernels carry secret factors; `zeroed`: the
    entries that are 0 live elsewhere; `inputs`: the key whose row order this tensor's input axis follows.
    """

    masks: int = 0
    permuted: bool = False
    scaled: bool = False
    zeroed: bool = False
    inputs: str | None = None


def learned_keys(network: Network) -> tuple[str, ...]:
    """Return the keys of the tensors that training set, in order of the nodes: the secret, as far as it is hidden.

    These are parameters, statistics of normalisations, and what was computed from them; fixed buffers (the
    standardisation of pixels) and constants of the program belong to the architecture. A network that names no
    parameters has all weights and biases learned.
    """
    named = bool(network.parameters)
    found: dict[str, None] = {}
    for node in network.nodes:
        for role, key in node.tensors.items():
            fixed = named and role not in _STATISTICS and key not in network.parameters
            learned = key.startswith(FOLDED) or (role in (*_LAYER_ROLES, *_STATISTICS) and not fixed)
            if (learned or key in network.parameters) and not key.startswith(CONSTANT):
                found[key] = None
    return tuple(found)


def resolution_ends(network: Network) -> tuple[str, ...]:
    """Return the last image-shaped value of each resolution, in order: where anybody would tap a surrogate."""
    ends: dict[tuple[int, ...], str] = {}
    for node in network.nodes:
        shape = network.values[node.output].shape
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            ends.pop(shape[1:], None)
            ends[shape[1:]] = node.output
    return tuple(ends.values())


def fitting_prior(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those public tensors that fit the network by key and shape (a head of other classes does not)."""
    own = {key: network.tensors[key].shape for key in learned_keys(network)}
    return {key: tensor for key, tensor in tensors.items() if own.get(key) == tensor.shape}


@final
@dataclass(frozen=True, eq=False)
class Exposure:
    """A split network as its attacker sees it.

    `architecture` is the form of the surrogate (one input, BatchNorm folded); its learned tensors are blanked here, so
    that what is not in `visible` cannot be read. `visible` holds what lies outside the secure world, possibly changed
    as `masked` says; `public` is the attacker's prior, key by key (missing ones start from random weights). `taps` are
    values of `architecture` that the attacker may put a head of its own on (none given: the end of each resolution, as
    anybody can do with a surrogate); `answer` is the value of the logits, None where the
    architecture ends in taps. `direct` is the part that answers without the secure world, where there is one. `related`
    says that `public` is the model the victim was tuned from: only then does failing to undo a disguise mean anything.

    Guarantee: no learned tensor outside `visible` and `direct` is reachable from here. Raises `ModelError` listing
    every key and shape that does not fit.
    """

    name: str
    architecture: Network
    visible: Mapping[str, Tensor]
    public: Mapping[str, Tensor] = field(default_factory=dict)
    masked: Mapping[str, Obfuscation] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    answer: str | None = ""
    direct: Network | None = None
    related: bool = False

    def __post_init__(self) -> None:
        """Blank the architecture and refuse tensors that do not fit it."""
        answer = self.architecture.outputs[-1] if self.answer == "" else self.answer
        object.__setattr__(self, "answer", answer)
        if not self.taps and answer is not None:
            object.__setattr__(self, "taps", resolution_ends(self.architecture))
        problems = self._problems()
        if problems:
            raise ModelError(
                "the exposure does not fit its architecture:\n  " + "\n  ".join(problems),
                expected="tensors of the architecture's learned keys, with its shapes (plus the mask rows)",
                fix="take the keys from the network the surrogate is built like",
            )
        blank = {key: torch.zeros_like(self.architecture.tensors[key]) for key in learned_keys(self.architecture)}
        tensors = {**self.architecture.tensors, **blank}
        object.__setattr__(self, "architecture", replace(self.architecture, tensors=tensors))

    def _problems(self) -> list[str]:
        known, values = set(learned_keys(self.architecture)), self.architecture.values
        problems = [f"visible tensor '{k}' is not learned by it" for k in self.visible if k not in known]
        problems += [f"obfuscated tensor '{k}' is not visible" for k in self.masked if k not in self.visible]
        problems += [f"tap '{v}' is not a value of it" for v in self.taps if v not in values]
        problems += [f"answer '{self.answer}' is not a value of it"] if self.answer not in {*values, None} else []
        problems += ["it has neither an answer nor a tap"] if self.answer is None and not self.taps else []
        problems += ["it has several inputs; a surrogate reads records"] if len(self.architecture.inputs) != 1 else []
        for kind, tensors in (("visible", self.visible), ("public", self.public)):
            for key in (key for key in tensors if key in known):
                rows, *rest = self.architecture.tensors[key].shape
                extra = self.masked[key].masks if kind == "visible" and key in self.masked else 0
                came = list(tensors[key].shape)
                problems += [f"{kind} '{key}' is {came}"] if came != [rows + extra, *rest] else []
        return problems

    @classmethod
    def of(
        cls,
        name: str,
        victim: Network,
        public: Mapping[str, Tensor],
        *,
        hidden: Collection[str] = (),
        taps: tuple[str, ...] = (),
        direct: Network | None = None,
        related: bool = False,
    ) -> Exposure:
        """Return the exposure of `victim` with the tensors `hidden` in the secure world and all others in the open."""
        visible = {k: victim.tensors[k].clone() for k in learned_keys(victim) if k not in hidden}
        return cls(name, victim, visible, dict(public), taps=taps, direct=direct, related=related)

    @property
    def disguised(self) -> tuple[str, ...]:
        """Keys of visible tensors whose rows are masked, reordered or scaled."""
        return tuple(k for k, how in self.masked.items() if how.masks or how.permuted or how.scaled)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Keys of the learned tensors that are not visible in any form."""
        return tuple(key for key in learned_keys(self.architecture) if key not in self.visible)

    def hiding(self, keys: Iterable[str]) -> Exposure:
        """Return the exposure without the tensors `keys`."""
        gone = set(keys)
        kept = {k: t for k, t in self.visible.items() if k not in gone}
        return replace(self, visible=kept, masked={k: m for k, m in self.masked.items() if k not in gone})

    def zeroing(self, share: float) -> Exposure:
        """Return the exposure with the `share` of all visible weights that is largest in magnitude set to zero."""
        weights = {key: self.visible[key] for key in weight_keys(self.architecture) if key in self.visible}
        sizes = torch.cat([t.abs().flatten() for t in weights.values()])
        count = max(1, round(share * sizes.numel()))
        bound = sizes.topk(count).values[-1]
        cut = {k: torch.where(t.abs() >= bound, torch.zeros_like(t), t) for k, t in weights.items()}
        masked = {k: replace(self.masked.get(k, Obfuscation()), zeroed=True) for k in cut}
        return replace(self, visible={**self.visible, **cut}, masked={**self.masked, **masked})

    def shadowed(
        self, keys: Iterable[str], seed: Seed, *, ratio: float = 1.25, spread: float = 10.0, scaled: bool = True
    ) -> Exposure:
        """Return the exposure with the weights `keys` disguised like ShadowNet's.

        Each kernel [rows, ...] is multiplied by a secret factor in ±[0.5, 2], gets one of the masks added that are
        uniform in ±`spread` times the largest weight, and kernels and masks are put in a secret order; a fraction
        `ratio` - 1 of mask rows is added. Source: Sun et al., S&P'23, as described in attacks on it.
        """
        visible, masked = dict(self.visible), dict(self.masked)
        for key in keys:
            own = seed.child("shadow", key)
            visible[key], masks = shadow(self.visible[key], own, ratio=ratio, spread=spread, scaled=scaled)
            masked[key] = replace(masked.get(key, Obfuscation()), masks=masks, permuted=True, scaled=scaled)
        return replace(self, visible=visible, masked=masked)

    def permuted(self, keys: Iterable[str], seed: Seed) -> Exposure:
        """Return the exposure with the output channels of weights `keys` in a secret order that their readers follow.

        The function of the whole stays the same. Raises `ModelError` where a reader cannot follow (additions,
        concatenations, depth-wise layers).
        """
        visible, masked = dict(self.visible), dict(self.masked)
        for key in keys:
            node = _owner(self.architecture, key)
            order = torch.randperm(len(visible[key]), generator=seed.child("order", key).torch())
            for own in (node.tensors[role] for role in ("weight", "bias") if role in node.tensors):
                if own in visible:
                    visible[own] = visible[own][order]
                    masked[own] = replace(masked.get(own, Obfuscation()), permuted=True)
            for reader in followers(self.architecture, node):
                if reader in visible:
                    visible[reader] = reordered_inputs(visible[reader], order)
                    masked[reader] = replace(masked.get(reader, Obfuscation()), inputs=key)
        return replace(self, visible=visible, masked=masked)


def weight_keys(network: Network) -> tuple[str, ...]:
    """Return the keys of convolutions' and linear layers' weights, in order of the nodes."""
    learned = set(learned_keys(network))
    keys = [n.tensors["weight"] for n in network.nodes if n.operator in ("conv2d", "linear")]
    return tuple(dict.fromkeys(key for key in keys if key in learned))


def shadow(
    weight: Tensor, seed: Seed, *, ratio: float = 1.25, spread: float = 10.0, scaled: bool = True
) -> tuple[Tensor, int]:
    """Return a weight [O, ...] disguised as [O + f, ...], and f = max(1, int(ratio O) - O)."""
    rows, generator = len(weight), seed.torch()
    count = max(1, int(ratio * rows) - rows)
    bound = spread * float(weight.abs().max())
    masks = (2 * torch.rand(count, *weight.shape[1:], generator=generator, dtype=torch.float64) - 1) * bound
    factors = torch.ones(rows, dtype=torch.float64)
    if scaled:
        sign = torch.randint(0, 2, (rows,), generator=generator) * 2 - 1
        factors = sign * (0.5 + 1.5 * torch.rand(rows, generator=generator, dtype=torch.float64))
    used = masks[torch.randint(0, count, (rows,), generator=generator)]
    kernels = weight.double() * factors.view(-1, *[1] * (weight.dim() - 1)) + used
    order = torch.randperm(rows + count, generator=generator)
    return torch.cat([kernels, masks])[order].to(weight.dtype), count


def reordered_inputs(weight: Tensor, order: Tensor) -> Tensor:
    """Return a weight [O, I, ...] whose inputs come in `order`; I may be a whole multiple (flattened pixels)."""
    blocks = weight.view(len(weight), len(order), -1)
    return blocks[:, order].reshape(weight.shape)


def followers(network: Network, node: Node) -> tuple[str, ...]:
    """Return the weights whose input channels are the outputs of `node`; raises where something else reads them."""
    found, open_values = [], [node.output]
    while open_values:
        value = open_values.pop()
        for reader in network.consumers(value):
            if reader.operator in _CHANNELWISE:
                open_values.append(reader.output)
            elif reader.operator == "linear" or (reader.operator == "conv2d" and reader.attributes["groups"] == 1):
                found.append(reader.tensors["weight"])
            else:
                raise ModelError(
                    f"the channels of '{node.name}' cannot be reordered",
                    expected="readers that are convolutions without groups or linear layers",
                    came=f"{reader.operator} '{reader.name}'",
                    fix="permute layers that feed one another directly",
                )
        if value in network.outputs:
            raise ModelError(f"the channels of '{node.name}' are an output of the network and cannot be reordered")
    return tuple(found)


def _owner(network: Network, key: str) -> Node:
    return next(node for node in network.nodes if key in node.tensors.values())
