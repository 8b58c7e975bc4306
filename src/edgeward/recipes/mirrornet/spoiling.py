"""Spoiling the head alone: the backbone keeps the victim's features and gives them away with a worse answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from edgeward.core.claim import Claim
from edgeward.graph.module import tensors_of, to_module
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, subnetwork
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.population import Population
from edgeward.train.task import Task
from edgeward.transforms.mirror.objective import MirrorObjective


@final
class HeadPair(nn.Module):
    """The victim's head as it is, beside one that is trained; answers [kept logits, trained logits]."""

    def __init__(self, head: Network) -> None:
        """Hold both; what is kept are buffers, so that no optimiser touches it."""
        super().__init__()
        self.kept, self.spoiled = to_module(head), to_module(head)
        for layer in self.kept.modules():
            for name, parameter in list(layer._parameters.items()):
                del layer._parameters[name]
                layer.register_buffer(name, None if parameter is None else parameter.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return both answers for features of the last stage."""
        return torch.cat([self.kept(x), self.spoiled(x)], 1)


def spoiled_head(
    victim: Network, at: Sequence[Cut], strategy: Strategy, task: Task, stage: str
) -> tuple[Network, tuple[Claim, ...]]:
    """Return `victim` with a head whose direct answer is `gap` less accurate on validation, and the claims of it.

    The flood of preset "faithful" (`MirrorObjective`) acts on the head only, trained on stored features of the last
    stage. Guarantee: none; whoever trains a new head on the same features has the victim's accuracy back, which the
    stealing audit shows.
    """
    last = at[-1].value
    front = to_module(subnetwork(victim, victim.inputs, (last,)))
    head = subnetwork(victim, (last,), victim.outputs[-1:])
    x, y = task.validation or (task.x, task.y)
    ready = replace(task, x=_features(front, task.x), validation=(_features(front, x), y))
    pair = HeadPair(head)
    population = Population.stack([pair], task.device)
    context = ready.context(task.factory, stage, replace(task.schedule, decay="constant"))
    with torch.no_grad():
        teacher = torch.cat([pair.kept(part) for part in torch.split(ready.x, 1000)])[None, None]
    _, claims = task.stage(stage, population, context, [MirrorObjective("faithful", teacher, strategy.gap)])
    pair.load_state_dict({key: tensor.cpu() for key, tensor in population.state(0).items()})
    found = tensors_of(pair.spoiled)
    spoiled = replace(victim, tensors={key: found.get(key, tensor) for key, tensor in victim.tensors.items()})
    return spoiled, claims


@torch.no_grad()
def _features(front: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([front(part) for part in torch.split(x, 250)])
