"""TBNet: two branches of the victim's architecture; the outer one feeds the secure one, both are pruned together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from edgeward.attacks.extraction.exposure import Exposure, learned_keys
from edgeward.graph.module import to_module
from edgeward.graph.network import CONSTANT, FOLDED, Network, Node, Value
from edgeward.graph.partition import Cut, stages, subnetwork
from edgeward.recipes.mirrornet.splitting import split
from edgeward.recipes.splits.lesson import Lesson
from edgeward.recipes.splits.split import SPLITS, Split, Subject, named_parameters, need_layers, need_stages

SECURE = "secure."
_PASSING = frozenset({"relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "reshape", "identity"})
Masks = Mapping[str, Float[Tensor, " O"]]


@final
@dataclass(frozen=True)
class TBNetEffort:
    """How long TBNet trains: `rounds` of pruning `share` of the channels each, `epochs` between them.

    `sparsity` weighs the L1 term on the sum of both branches' scales. A round is kept while the lesson's records are
    answered at most `drop` worse than before the first.
    """

    rounds: int = 3
    share: float = 0.1
    epochs: int = 4
    rate: float = 1e-3
    sparsity: float = 1e-4
    drop: float = 0.02


def inside(key: str) -> str:
    """Return the key of the secure branch's copy of a tensor; reserved prefixes stay in front.

    >>> inside("conv.weight"), inside("folded:conv.weight")
    ('secure.conv.weight', 'folded:secure.conv.weight')
    """
    for prefix in (FOLDED, CONSTANT):
        if key.startswith(prefix):
            return f"{prefix}{SECURE}{key.removeprefix(prefix)}"
    return f"{SECURE}{key}"


def two_branches(victim: Network, at: tuple[Cut, ...]) -> tuple[Network, Network]:
    """Return both branches as one network, and the secure one alone.

    The secure branch reads the record and, after every stage, adds the outer branch's result to its own. Where a layer
    reads nothing but such a sum, its weights are halved, so that two equal branches answer as the victim does.
    """
    added = {cut.value for cut in at[1:]}
    nodes: list[Node] = []
    values: dict[str, Value] = {}
    tensors: dict[str, Tensor] = {}
    now: dict[str, str] = {name: name for name in victim.inputs}
    doubled: set[str] = set()
    for node in victim.nodes:
        own = f"{SECURE}{node.output}"
        held = {role: inside(key) for role, key in node.tensors.items()}
        halve = node.operator in ("conv2d", "linear") and node.inputs[0] in doubled
        for role, key in node.tensors.items():
            tensors[inside(key)] = victim.tensors[key].clone() * (0.5 if halve and role == "weight" else 1.0)
        copy = replace(
            node, name=f"{SECURE}{node.name}", layer=f"{SECURE}{node.layer}", inputs=tuple(now[v] for v in node.inputs)
        )
        nodes.append(replace(copy, output=own, tensors=held))
        values[own] = Value(own, victim.values[node.output].shape)
        now[node.output] = own
        if node.operator in _PASSING and node.inputs[0] in doubled:
            doubled.add(node.output)
        if node.output in added:
            both = f"{SECURE}both.{node.output}"
            nodes.append(Node(both, "", "add", (own, node.output), both))
            values[both], now[node.output] = Value(both, values[own].shape), both
            doubled.add(node.output)
    answer = now[victim.outputs[-1]]
    taps = (*victim.inputs, *(cut.value for cut in at[1:]))
    known = {name: victim.values[name] for name in taps}
    trained = frozenset(inside(key) for key in victim.parameters)
    secure = Network(taps, (answer,), tuple(nodes), {**known, **values}, tensors, trained)
    whole = Network(
        victim.inputs,
        (answer,),
        (*victim.nodes, *nodes),
        {**victim.values, **values},
        {**victim.tensors, **tensors},
        victim.parameters | trained,
    )
    return whole, secure


@final
class _Branches:
    """Both branches in training: weights, a scale per channel of every convolution, and which channels are left."""

    def __init__(self, whole: Network, victim: Network, effort: TBNetEffort) -> None:
        self._module, self._names, self._effort = to_module(whole), named_parameters(whole), effort
        learned = {key for key in learned_keys(whole) if key in self._names}
        self._weights = {key: whole.tensors[key].clone().requires_grad_() for key in whole.tensors if key in learned}
        self._layers = [node for node in victim.nodes if node.operator == "conv2d" and node.attributes["groups"] == 1]
        self._scales = {
            f"{branch}{node.name}": torch.ones(len(victim.tensor(node, "weight")), requires_grad=True)
            for node in self._layers
            for branch in ("", SECURE)
        }
        self.masks: dict[str, Tensor] = {
            node.name: torch.ones(len(victim.tensor(node, "weight"))) for node in self._layers
        }

    def tensors(self, outer: Masks | None = None) -> dict[str, Tensor]:
        """Return the tensors by key with scales and masks in them; `outer` are other masks for the outer branch."""
        found = dict(self._weights)
        for node in self._layers:
            for branch, masks in (("", outer or self.masks), (SECURE, self.masks)):
                named = inside if branch else str
                factor = self._scales[f"{branch}{node.name}"] * masks[node.name]
                for role in ("weight", "bias"):
                    key = named(node.tensors.get(role, ""))
                    if key in found:
                        tensor = self._weights[key]
                        found[key] = tensor * factor.view(-1, *[1] * (tensor.dim() - 1))
        return found

    def logits(self, x: Tensor, outer: Masks | None = None) -> Tensor:
        """Return the secure branch's answer."""
        named = {self._names[key]: tensor for key, tensor in self.tensors(outer).items()}
        found: Tensor = functional_call(self._module, named, (x,))
        return found

    def sums(self) -> dict[str, Tensor]:
        """Return the sum of both branches' scales, per layer."""
        return {n.name: self._scales[n.name] + self._scales[f"{SECURE}{n.name}"] for n in self._layers}

    def train(self, lesson: Lesson) -> None:
        """Train weights and scales by cross-entropy and the L1 norm of the scales' sums."""
        parameters = [*self._weights.values(), *self._scales.values()]
        learning = torch.optim.Adam(parameters, self._effort.rate)
        for rows in lesson.batches(self._effort.epochs):
            loss = F.cross_entropy(self.logits(lesson.x[rows]), lesson.y[rows])
            loss = loss + self._effort.sparsity * sum(s.abs().sum() for s in self.sums().values())
            learning.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 5.0)
            learning.step()

    @torch.no_grad()
    def pruned(self) -> dict[str, Tensor]:
        """Return masks without the channels of the smallest sums; every layer keeps one."""
        sums = {name: s.abs() + 1e9 * (1 - self.masks[name]) for name, s in self.sums().items()}
        left = torch.cat([s[s < 1e8] for s in sums.values()])
        bound = left.sort().values[min(len(left) - 1, int(self._effort.share * len(left)))]
        found = {}
        for name, s in sums.items():
            mask = self.masks[name] * (s >= bound).float()
            found[name] = mask if bool(mask.any()) else self.masks[name]
        return found

    @torch.no_grad()
    def accuracy(self, lesson: Lesson, outer: Masks | None = None) -> float:
        """Return the share of the lesson that the secure branch answers right."""
        return float((self.logits(lesson.x, outer).argmax(1) == lesson.y).float().mean())


def trained_branches(
    subject: Subject, whole: Network, effort: TBNetEffort | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of both branches, and the channel masks of the outer and of the secure one.

    Training and pruning alternate; at the end the outer branch goes back to the masks before the last kept round, so
    that its architecture tells less about the secure one's.
    """
    effort, lesson = effort or TBNetEffort(), Lesson.of(subject, "tbnet")
    branches = _Branches(whole, subject.victim, effort)
    branches.train(lesson)
    start, history = branches.accuracy(lesson), [branches.masks]
    kept = {key: tensor.detach().clone() for key, tensor in branches.tensors().items()}
    for _ in range(effort.rounds):
        branches.masks = branches.pruned()
        branches.train(lesson)
        outer = history[-1]
        if branches.accuracy(lesson, outer) < start - effort.drop:
            branches.masks = history[-1]
            break
        history.append(branches.masks)
        kept = {key: tensor.detach().clone() for key, tensor in branches.tensors(outer).items()}
    return kept, history[max(0, len(history) - 2)], history[-1]


@SPLITS.register("tbnet")
def tbnet(subject: Subject) -> Split:
    """Keep one branch outside and one in the secure world, which adds the outer one's results and answers.

    Guarantee: none: the outer branch is a network trained on the private records. Source: Liu et al., TBNet, DAC 2024
    (two branches, L1 on the sum of their scales, iterative pruning of both, rollback of the outer one). Not readable
    there, and so chosen here: both branches start from the victim's weights, results meet after every stage, channels
    that are pruned are zero and not cut out.
    """
    victim, at = subject.victim, stages(subject.victim)
    need_stages(len(at) - 1, 1, "tbnet")
    need_layers(sum(node.operator == "conv2d" for node in victim.nodes), "tbnet")
    whole, secure = two_branches(victim, at)
    tensors, _, left = trained_branches(subject, whole)
    outer = replace(victim, tensors={key: tensors.get(key, tensor) for key, tensor in victim.tensors.items()})
    inner = replace(secure, tensors={key: tensors.get(key, tensor) for key, tensor in secure.tensors.items()})
    normal = subnetwork(outer, outer.inputs, (*outer.inputs, *(cut.value for cut in at[1:]), outer.outputs[-1]))
    deployment = split("tbnet", normal, inner, subject.calibration, plain={"kind": "tbnet"})
    exposure = replace(
        Exposure.of("tbnet", outer, subject.public, direct=outer), taps=tuple(cut.value for cut in at[1:])
    )
    return Split("tbnet", exposure, deployment.traffic, _held(victim, left), deployment)


def _held(victim: Network, left: Mapping[str, Tensor]) -> int:
    """Return the learned numbers of the secure branch without its pruned output channels."""
    gone = sum(
        int((1 - left[node.name]).sum()) * victim.tensor(node, "weight")[0].numel()
        for node in victim.nodes
        if node.name in left
    )
    return sum(victim.tensors[key].numel() for key in learned_keys(victim)) - gone
