"""NNSplitter: a few changed weights outside make the network useless; the secure world holds the changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from edgeward.attacks.extraction.exposure import Exposure
from edgeward.backends.tee.deployment import Traffic
from edgeward.graph.module import to_module
from edgeward.graph.network import Network
from edgeward.recipes.splits.lesson import Lesson
from edgeward.recipes.splits.split import SPLITS, Split, Subject, feature_bytes, named_parameters, need_layers
from edgeward.train.population import build


@final
@dataclass(frozen=True)
class NNSplitterEffort:
    """How long NNSplitter looks: rounds of the controller, epochs and rate of each attempt, and its penalty.

    `near` is the distance from `centre` (both in standard deviations of all convolution weights, `centre` from their
    mean) within which a weight may be changed: the source gives absolute numbers for VGG-11 alone. `hidden` is the
    width of the controller's recurrent layer.
    """

    rounds: int = 4
    epochs: int = 2
    rate: float = 0.05
    penalty: float = 1e-3
    near: float = 0.25
    centre: float = 0.0
    hidden: int = 512


@final
class Controller(nn.Module):
    """One recurrent layer that picks one filter per convolution, with a soft-max of its own for each layer."""

    def __init__(self, filters: tuple[int, ...], hidden: int) -> None:
        """Choose among `filters[i]` filters of layer i."""
        super().__init__()
        self.cell = nn.RNNCell(hidden, hidden)
        self.start = nn.Parameter(torch.zeros(1, hidden))
        self.decoders = nn.ModuleList(nn.Linear(hidden, count) for count in filters)

    def forward(self, generator: torch.Generator) -> tuple[list[int], Tensor]:
        """Return the filters that were drawn, and the logarithm of their probability."""
        state, given, chosen, likelihood = torch.zeros_like(self.start), self.start, [], torch.zeros(())
        for decoder in self.decoders:
            state = self.cell(given, state)
            scores = F.log_softmax(decoder(state)[0], 0)
            pick = int(torch.multinomial(scores.exp().detach(), 1, generator=generator))
            chosen.append(pick)
            likelihood, given = likelihood + scores[pick], state
        return chosen, likelihood


def changed_weights(
    subject: Subject, effort: NNSplitterEffort | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights to show, by key, and what the secure world takes off again (both of every convolution).

    The controller is trained with REINFORCE; its reward is the share of the lesson's records that the shown network
    gets wrong (what the source rewards beyond that was not readable).
    """
    effort, lesson = effort or NNSplitterEffort(), Lesson.of(subject, "nnsplitter")
    keys = _convolutions(subject.victim)
    weights = {key: subject.victim.tensors[key] for key in keys}
    spread = torch.cat([w.flatten() for w in weights.values()])
    centre, near = float(spread.mean() + effort.centre * spread.std()), float(effort.near * spread.std())
    filters = tuple(len(weight) for weight in weights.values())
    controller = build(lambda: Controller(filters, effort.hidden), lesson.seed.child("controller-weights"))
    learning = torch.optim.Adam(controller.parameters(), 3e-4)
    generator, best, baseline = lesson.seed.child("controller").torch(), (-1.0, dict(weights)), 0.0
    for number in range(effort.rounds):
        chosen, likelihood = controller(generator)
        masks = {
            key: _selected(weight, pick, centre, near)
            for (key, weight), pick in zip(weights.items(), chosen, strict=True)
        }
        shown = _spoiled(subject.victim, weights, masks, lesson, effort)
        reward = 1 - _accuracy(subject.victim, shown, lesson)
        baseline = reward if number == 0 else 0.8 * baseline + 0.2 * reward
        learning.zero_grad()
        (-(reward - baseline) * likelihood).backward()
        learning.step()
        best = max(best, (reward, shown), key=lambda found: found[0])
    return best[1], {key: best[1][key] - weight for key, weight in weights.items()}


def _convolutions(network: Network) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.tensors["weight"] for node in network.nodes if node.operator == "conv2d"))


def _selected(weight: Float[Tensor, "O ..."], pick: int, centre: float, near: float) -> Bool[Tensor, "O ..."]:
    """Return the entries of filter `pick` that may change: those near the centre."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[pick] = (weight[pick] - centre).abs() < near
    return mask


def _spoiled(
    victim: Network,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    lesson: Lesson,
    effort: NNSplitterEffort,
) -> dict[str, Tensor]:
    """Train the selected weights alone by -CE + penalty |change|_1, kept within each layer's own range."""
    module, names = to_module(victim), named_parameters(victim)
    changes = {key: torch.zeros_like(weight, requires_grad=True) for key, weight in weights.items()}
    learning = torch.optim.Adam(list(changes.values()), effort.rate)

    def shown() -> dict[str, Tensor]:
        return {
            key: torch.clamp(weight + masks[key] * changes[key], float(weight.min()), float(weight.max()))
            for key, weight in weights.items()
        }

    for rows in lesson.batches(effort.epochs):
        logits = functional_call(module, {names[key]: tensor for key, tensor in shown().items()}, (lesson.x[rows],))
        size = sum((masks[key] * change).abs().sum() for key, change in changes.items())
        learning.zero_grad()
        (-F.cross_entropy(logits, lesson.y[rows]) + effort.penalty * size).backward()  # type: ignore[no-untyped-call]
        learning.step()
    return {key: tensor.detach() for key, tensor in shown().items()}


@torch.no_grad()
def _accuracy(victim: Network, shown: Mapping[str, Tensor], lesson: Lesson) -> float:
    names = named_parameters(victim)
    logits = functional_call(to_module(victim), {names[k]: t for k, t in shown.items()}, (lesson.x,))
    return float((logits.argmax(1) == lesson.y).float().mean())


@SPLITS.register("nnsplitter")
def nnsplitter(subject: Subject) -> Split:
    """Show a network with few changed weights; the secure world subtracts what they add: audited, not run.

    Guarantee: none against fine-tuning. The secure world's answer is the victim's own, exactly.
    Source: Zhou et al., NNSplitter, ICML 2023 (selection near a centre, controller, loss, clamping); scale and reward
    are of this implementation.
    """
    victim = subject.victim
    need_layers(len(_convolutions(victim)), "nnsplitter")
    shown, changes = changed_weights(subject)
    exposure = Exposure.of("nnsplitter", victim, subject.public)
    exposure = replace(
        exposure, visible={**exposure.visible, **shown}, direct=replace(victim, tensors={**victim.tensors, **shown})
    )
    touched = {key for key, change in changes.items() if bool(change.any())}
    layers = [node for node in victim.nodes if node.tensors.get("weight") in touched]
    inward = sum(feature_bytes(victim, node.inputs[0], node.output) for node in layers)
    back = sum(feature_bytes(victim, node.output) for node in layers)
    held = sum(int((change != 0).sum()) for change in changes.values())
    notes = ("features return after every changed layer: audited, not run",)
    return Split("nnsplitter", exposure, Traffic(False, len(layers), inward, back), held, notes=notes)
