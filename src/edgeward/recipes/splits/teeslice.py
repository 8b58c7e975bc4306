"""TEESlice: a public backbone outside, small private slices inside that are mixed into every block's result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.attacks.extraction.exposure import Exposure, fitting_prior, learned_keys
from edgeward.backends.tee.deployment import Traffic
from edgeward.core.errors import ModelError
from edgeward.graph.module import to_module
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, blocks, divide, stages, subnetwork
from edgeward.recipes.splits.lesson import Lesson
from edgeward.recipes.splits.split import SPLITS, Split, Subject, feature_bytes, need_stages
from edgeward.train.population import build

REACH = 3
"""A block takes slices from the results of so many blocks before it."""
MAIN, SLICE = 2.0, -2.0
"""Initial weights of a block's own result and of its slices, before the soft-max."""


@final
@dataclass(frozen=True)
class TEESliceEffort:
    """How long TEESlice trains and prunes; the defaults are small, the source's are 40 and 20 epochs on images.

    The loss is distillation (temperature 4) + `complexity` times the expected share of the slices' work + `ends` times
    the mean squared distance of every block's end from the victim's.
    """

    epochs: int = 12
    rounds: int = 3
    round_epochs: int = 2
    rate: float = 0.01
    complexity: float = 0.3
    ends: float = 10.0
    temperature: float = 4.0
    least: float = 0.1
    first_share: float = 0.5
    share: float = 0.05
    drop: float = 0.01


@final
class Slice(nn.Module):
    """A 1x1 convolution with normalisation, behind a max-pooling where the resolution falls."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """Lead from shape `before` (C, H, W) to `after`."""
        super().__init__()
        step = before[1] // after[1]
        self.pool = nn.MaxPool2d(step) if step > 1 else nn.Identity()
        self.point = nn.Conv2d(before[0], after[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(after[0])
        self.macs = before[0] * after[0] * after[1] * after[2]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d g v"]:
        """Return the slice's share of a block."""
        found: Tensor = self.norm(self.point(self.pool(x)))
        return found


@final
class Student(nn.Module):
    """The frozen backbone block by block, the slices beside it, and a private classifier."""

    def __init__(self, backbone: Network, victim: Network, at: Sequence[Cut]) -> None:
        """Take blocks of `backbone` between the cuts, and the classifier of `victim` to start from."""
        super().__init__()
        parts = divide(backbone, at)
        self.blocks = nn.ModuleList(to_module(part) for part in parts[:-1])
        self.head = to_module(subnetwork(victim, (at[-1].value,), victim.outputs[-1:]))
        for parameter in self.blocks.parameters():
            parameter.requires_grad_(False)
        self.slices, self.mixing = nn.ModuleDict(), nn.ParameterDict()
        for end in range(1, len(at)):
            sources = [start for start in range(max(1, end - REACH), end) if _leads(at[start].shape, at[end].shape)]
            for start in sources:
                self.slices[f"{start}to{end}"] = Slice(at[start].shape, at[end].shape)
            self.mixing[str(end)] = nn.Parameter(torch.tensor([MAIN, *[SLICE] * len(sources)]))
        self.sources = {end: [k for k in self.slices if k.endswith(f"to{end}")] for end in range(1, len(at))}
        self.left = set(self.slices)

    def shares(self, end: int) -> dict[str, Tensor]:
        """Return the soft-max weights of a block's own result ("") and of the slices that are left."""
        names = ["", *self.sources[end]]
        open_ = [not name or name in self.left for name in names]
        scores = self.mixing[str(end)].masked_fill(~torch.tensor(open_), float("-inf"))
        return dict(zip(names, scores.softmax(0), strict=True))

    def ends(self, x: Tensor) -> list[Tensor]:
        """Return the result of every block."""
        found = [x]
        for number, block in enumerate(self.blocks, 1):
            shares = self.shares(number)
            mixed = shares[""] * block(found[-1])
            for name in self.sources[number]:
                if name in self.left:
                    mixed = mixed + shares[name] * self.slices[name](found[int(name.partition("to")[0])])
            found.append(torch.relu(mixed))
        return found[1:]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        found: Tensor = self.head(self.ends(x)[-1])
        return found

    def complexity(self) -> Tensor:
        """Return the share of the slices' work that is expected to stay, by their soft-max weights."""
        total = sum(cast(Slice, piece).macs for piece in self.slices.values()) or 1
        kept = [
            share * cast(Slice, self.slices[name]).macs / total
            for end in self.sources
            for name, share in self.shares(end).items()
            if name
        ]
        return torch.stack(kept).sum() if kept else torch.zeros(())


def _leads(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Return whether a slice can lead from one shape to the other."""
    if len(before) != 3 or len(after) != 3 or min(after[1:]) < 1:
        return False
    step = before[1] // after[1]
    return step >= 1 and before[1] // step == after[1] and before[2] // step == after[2]


def sliced(subject: Subject, effort: TEESliceEffort | None = None) -> Student:
    """Train a student for `subject` and prune its slices while the accuracy on the lesson holds.

    Raises: `ModelError` without a public backbone.
    """
    effort, lesson, victim = effort or TEESliceEffort(), Lesson.of(subject, "teeslice"), subject.victim
    held = fitting_prior(victim, subject.public)
    at = _cuts(victim)
    need_stages(len(at) - 1, 2, "teeslice")
    if not held:
        raise ModelError(
            "'teeslice' has no public backbone",
            expected="public weights of the victim's architecture",
            came="none that fit",
            fix="give the subject public tensors",
        )
    backbone = Network(
        victim.inputs, victim.outputs, victim.nodes, victim.values, {**victim.tensors, **held}, victim.parameters
    )
    student = cast(Student, build(lambda: Student(backbone, victim, at), lesson.seed.child("slices")))
    teacher = to_module(subnetwork(victim, victim.inputs, tuple(cut.value for cut in at[1:])))
    with torch.no_grad():
        given = teacher(lesson.x)
    wanted = list(given) if isinstance(given, tuple) else [given]
    _train(student, lesson, wanted, effort, effort.epochs)
    start = _accuracy(student, lesson)
    for number in range(effort.rounds):
        before, state = set(student.left), {key: t.clone() for key, t in student.state_dict().items()}
        student.left -= _weakest(student, effort, effort.first_share if number == 0 else effort.share)
        _train(student, lesson, wanted, effort, effort.round_epochs)
        if _accuracy(student, lesson) < (1 - effort.drop) * start:
            student.left = before
            student.load_state_dict(state)
            break
    return student.eval()


def _cuts(victim: Network) -> tuple[Cut, ...]:
    """Return the cuts between blocks of images; the finer division where it has more than the stages."""
    fine = [cut for cut in blocks(victim) if cut.index == 0 or len(cut.shape) == 3]
    return tuple(fine) if len(fine) > 2 else stages(victim)


def _train(student: Student, lesson: Lesson, wanted: Sequence[Tensor], effort: TEESliceEffort, epochs: int) -> None:
    trained = [p for p in student.parameters() if p.requires_grad]
    learning = torch.optim.Adam(trained, effort.rate)
    student.train()
    student.blocks.eval()
    warm = effort.temperature
    for rows in lesson.batches(epochs):
        if len(rows) < 2:
            continue  # a normalisation over one record has no variance
        ends = student.ends(lesson.x[rows])
        logits = student.head(ends[-1])
        soft = F.kl_div((logits / warm).log_softmax(1), (lesson.logits[rows] / warm).softmax(1), reduction="batchmean")
        apart = torch.stack([F.mse_loss(end, want[rows]) for end, want in zip(ends, wanted, strict=True)]).mean()
        loss = warm**2 * soft + effort.complexity * student.complexity() + effort.ends * apart
        learning.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        learning.step()
    student.eval()


def _weakest(student: Student, effort: TEESliceEffort, share: float) -> set[str]:
    """Return the slices to drop: weights up to `least`, and at least the lowest `share` of them."""
    weights = {
        n: float(s.detach()) for end in student.sources for n, s in student.shares(end).items() if n in student.left
    }
    ranked = sorted(weights, key=lambda name: weights[name])
    low = {name for name, weight in weights.items() if weight <= effort.least}
    most = max(0, len(ranked) - 1)  # one slice stays, or nothing private would be left in the blocks
    return set(ranked[: min(most, max(len(low), round(share * len(ranked))))])


@torch.no_grad()
def _accuracy(student: Student, lesson: Lesson) -> float:
    return float((student.eval()(lesson.x).argmax(1) == lesson.y).float().mean())


@SPLITS.register("teeslice")
def teeslice(subject: Subject) -> Split:
    """Show a public backbone that never saw a private record; slices, mixing weights and classifier are hidden.

    Every block's result is mixed in the secure world and goes back under a one-time pad: audited, not run.
    Guarantee: the normal world holds no weight that depends on the private records (by construction, where the public
    tensors are what they are said to be). Source: Zhang et al., TEESlice, S&P 2024 (slices, loss, iterative pruning).
    """
    victim, student = subject.victim, sliced(subject)
    at, held = _cuts(victim), fitting_prior(victim, subject.public)
    head = set(learned_keys(subnetwork(victim, (at[-1].value,), victim.outputs[-1:])))
    shown = {key: held[key] for key in learned_keys(victim) if key in held and key not in head}
    exposure = Exposure("teeslice", victim, shown, dict(subject.public), taps=tuple(cut.value for cut in at[1:]))
    inside = [student.slices[name] for name in sorted(student.left)]
    numbers = sum(p.numel() for piece in inside for p in piece.parameters()) + len(inside) + len(student.blocks)
    numbers += sum(victim.tensors[key].numel() for key in head)
    moved = feature_bytes(victim, *(cut.value for cut in at[1:]))
    traffic = Traffic(False, len(at) - 1, moved, moved)
    notes = (
        f"features return after every block: audited, not run; {len(inside)} of {len(student.slices)} slices stay",
    )

    @torch.no_grad()
    def logits(x: Tensor) -> Tensor:
        return torch.cat([student(part) for part in torch.split(x, 500)])

    return Split("teeslice", exposure, traffic, numbers, notes=notes, logits=logits)
