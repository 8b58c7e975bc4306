"""`Surrogate`: the attacker's trainable copy of an architecture, with its own head where it wants one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeward.attacks.extraction.exposure import Exposure, learned_keys
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.network import Network, Node
from edgeward.graph.semantics import apply

# Tensors that a gradient step could make meaningless (a negative variance).
_STATISTICS = ("mean", "variance", "scale", "weight_scale", "activation_scale", "activation_zero_point")


@final
class Surrogate(nn.Module):
    """A network's nodes up to `outputs` over the given learned tensors, optionally with a head on pooled outputs.

    Parameters are called by tensor key (dots replaced), so that some can be frozen; all other tensors are buffers.
    """

    def __init__(
        self, network: Network, outputs: tuple[str, ...], tensors: Mapping[str, Tensor], head: nn.Module | None = None
    ) -> None:
        """Hold copies of the tensors that the outputs need."""
        super().__init__()
        self._input, self._wanted = network.inputs[0], outputs
        self._steps = needed(network, outputs)
        self._shapes = {node.name: network.values[node.output].shape for node in self._steps}
        learned = set(learned_keys(network))
        for key, role in {key: role for node in self._steps for role, key in node.tensors.items()}.items():
            tensor = tensors.get(key, network.tensors[key]).detach().clone()
            if key in learned and role not in _STATISTICS and tensor.is_floating_point():
                self.register_parameter(parameter_name(key), nn.Parameter(tensor))
            else:
                self.register_buffer(parameter_name(key), tensor)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, C] for records [n, ...]: the pooled outputs, or the head's answer to them."""
        wanted = self.run(x)
        if isinstance(self.head, Monitor):
            corrected: Tensor = self.head(*wanted)
            return corrected
        joined = torch.cat([pooled(value) for value in wanted], dim=1)
        answer: Tensor = joined if self.head is None else self.head(joined)
        return answer

    def run(self, x: Tensor) -> list[Tensor]:
        """Return the values `outputs` for records [n, ...]."""
        values = {self._input: x}
        for node in self._steps:
            held = {role: getattr(self, parameter_name(key)) for role, key in node.tensors.items()}
            inputs = [values[name] for name in node.inputs]
            values[node.output] = apply(node, held, inputs, self._shapes[node.name], x.shape[0])
        return [values[name] for name in self._wanted]


@final
class TapHead(nn.Module):
    """The attacker's own monitor: fixed standardisation of the pooled taps, then one hidden layer (or none)."""

    def __init__(self, features: int, classes: int, hidden: int) -> None:
        """Create the head; `hidden` 0 makes it linear."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.first = nn.Linear(features, hidden) if hidden else nn.Identity()
        self.last = nn.Linear(hidden or features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes] for pooled taps [n, features]."""
        x = (x - self.get_buffer("centre")) / self.get_buffer("scale")
        x = torch.relu(self.first(x)) if isinstance(self.first, nn.Linear) else x
        logits: Tensor = self.last(x)
        return logits

    def standardised(self, features: Tensor) -> TapHead:
        """Set the standardisation from features [n, features] and return the head."""
        self.get_buffer("centre").copy_(features.mean(0))
        self.get_buffer("scale").copy_(features.std(0, unbiased=False).clamp(min=1e-3))
        return self


@final
class Monitor(nn.Module):
    """The attacker's own convolutional monitor: per tap a 1x1 reduction, plus what came before, then 3x3 depth-wise.

    Taps are images [n, C, H, W] from large to small; each is standardised per channel with fixed figures.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, width: int) -> None:
        """Create one block per tap."""
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in channels)
        self.point = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in channels)
        self.last = nn.Linear(width, classes)
        for index, count in enumerate(channels):
            self.register_buffer(f"centre{index}", torch.zeros(count, 1, 1))
            self.register_buffer(f"scale{index}", torch.ones(count, 1, 1))

    def forward(self, *taps: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        state = taps[0].new_zeros(())
        for index, tap in enumerate(taps):
            tap = (tap - self.get_buffer(f"centre{index}")) / self.get_buffer(f"scale{index}")
            own = self.reduce[index](tap)
            own = own if index == 0 else own + F.adaptive_max_pool2d(state, (own.shape[-2], own.shape[-1]))
            state = torch.relu(self.point[index](self.mix[index](torch.relu(own)))) + own
        logits: Tensor = self.last(state.mean((2, 3)))
        return logits

    def standardised(self, taps: Sequence[Tensor]) -> Monitor:
        """Set the standardisation from tap values [n, C, H, W] and return the monitor."""
        for index, tap in enumerate(taps):
            self.get_buffer(f"centre{index}").copy_(tap.mean((0, 2, 3))[:, None, None])
            self.get_buffer(f"scale{index}").copy_(tap.std((0, 2, 3)).clamp(min=1e-3)[:, None, None])
        return self


def parameter_name(key: str) -> str:
    """Return the name under which a tensor key is held."""
    return "tensor " + key.replace(".", " ")


def needed(network: Network, outputs: Collection[str]) -> tuple[Node, ...]:
    """Return the nodes that the values `outputs` depend on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(network.nodes):
        if node.output in wanted:
            kept.append(node)
            wanted |= set(node.inputs)
    return tuple(reversed(kept))


def pooled(value: Tensor) -> Tensor:
    """Return [n, F]: images [n, C, H, W] as channel means, token rows [n, T, D] as their mean, vectors as they are."""
    if value.dim() == 4:
        return F.adaptive_avg_pool2d(value, 1).flatten(1)
    return value.mean(1) if value.dim() == 3 else value.flatten(1)


def head_node(exposure: Exposure) -> Node | None:
    """Return the last linear layer if its output is the answer itself."""
    if exposure.answer is None:
        return None
    node = exposure.architecture.producer(exposure.answer)
    return node if node is not None and node.operator == "linear" else None


def fresh(shape: torch.Size | tuple[int, ...], role: str, generator: torch.Generator) -> Tensor:
    """Return a random start: He-normal weights, zero biases."""
    if role != "weight":
        return torch.ones(shape) if role in ("variance", "scale") else torch.zeros(shape)
    fan = max(1, math.prod(shape[1:]))
    return torch.randn(shape, generator=generator) * math.sqrt(2.0 / fan)


def starting_tensors(
    exposure: Exposure, known: Mapping[str, Tensor], seed: Seed, *, reset_head: bool
) -> dict[str, Tensor]:
    """Return a start for every learned tensor: what is known, else the public prior, else random.

    `reset_head` draws the last linear layer anew (PyTorch's uniform range).
    """
    network, generator = exposure.architecture, seed.torch()
    head = head_node(exposure) if reset_head else None
    roles = {key: role for node in network.nodes for role, key in node.tensors.items()}
    found: dict[str, Tensor] = {}
    for key in learned_keys(network):
        shape = network.tensors[key].shape
        if head is not None and key in head.tensors.values():
            bound = 1.0 / math.sqrt(network.tensors[head.tensors["weight"]].shape[1])
            found[key] = (2 * torch.rand(shape, generator=generator) - 1) * bound
        elif key in known:
            found[key] = known[key]
        else:
            found[key] = exposure.public.get(key, fresh(shape, roles[key], generator))
        if found[key].shape != shape:
            raise ModelError(f"'{key}' does not fit", expected=str(list(shape)), came=str(list(found[key].shape)))
    return found
