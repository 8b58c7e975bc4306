"""Cross-fitted distillation: one abstraction for Gecko's teacher, KCD, SELENA and DMP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from edgeward.core.claim import Claim
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.train.fit import fit
from edgeward.train.part import Batch, Context, CrossEntropy, Loss, Needs, Part, Schedule
from edgeward.train.population import Factory, Population

LEAST_KEPT: Final = 0.25
"""The share of a model's records that its student trains on at least, however little teachers agree."""


def held_out(
    records: int, teachers: int, excluded: int, seed: Seed, groups: Int[Tensor, " n"] | None = None
) -> Bool[Tensor, "K n"]:
    """Return which teacher must not see which record: each record (or group) is held out of exactly `excluded`.

    `groups` gives records of one person or near-duplicates one fold, so that no teacher learns a record by its twin.
    """
    ids = torch.arange(records) if groups is None else groups
    _, member = torch.unique(ids, return_inverse=True)
    count = int(member.max()) + 1
    ranks = torch.rand(count, teachers, generator=seed.torch()).argsort(1).argsort(1)
    return (ranks < excluded)[member].T.contiguous()


def agreeing(members: Bool[Tensor, "S n"], soft: Float[Tensor, "S n C"], consensus: float) -> Bool[Tensor, "S n"]:
    """Return the members whose winning class has at least `consensus` of the teachers' mean probability.

    A model on whose records teachers hardly agree keeps the quarter of its members on which they agree most.
    """
    sure = soft.amax(-1).masked_fill(~members, -1.0)
    place = sure.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    least = (LEAST_KEPT * members.sum(1, keepdim=True)).ceil()
    return members & ((sure >= consensus) | (place < least))


@final
@dataclass(frozen=True)
class CrossFitDistillation(Part):
    """Train K teachers, label each record only by teachers that did not see it, and teach the student with that.

    `teachers` is K and `excluded` is L: each record is held out of exactly L teachers and labelled by the mean of those
    L (L = 0: by all, who all saw it). `alpha` weighs the record's own label, `temperature` softens both sides.
    `transfer` is "private" (the training records) or "reference" (records nobody needs to protect, given as
    `reference`). `grouped` are fold groups. `lesson` are further parts of the teachers' training. `answers` is what the
    student is shown: "soft" (mean probabilities) or "vote" (the class with the largest mean): a record that teachers
    memorised shifts their doubts about its neighbours more often than their verdict. `mixing` > 0 trains the student on
    convex mixtures of two records of a batch with weights from Beta(mixing, mixing), so that it seldom meets a record
    as it is. `consensus` > 0 leaves out of the student's training every record whose winning class has a mean
    probability below it among the teachers that label it (down to a quarter of the records): what only the record
    itself teaches is not taught at all.

    Presets: Gecko's teacher is (1, 0), KCD (n, 1), SELENA (25, 10), DMP (1, 0, transfer="reference").
    Guarantee: no teacher that labels a record was trained on it when L >= 1 (by construction); what still leaks
    through the student is measured, not proved: near-duplicates across folds re-teach it.
    Cost: K extra trainings of the teacher.
    Source: Papernot et al. ICLR'17 (PATE: disjoint teachers that vote);
    Shejwalkar & Houmansadr AAAI'21 (DMP); Chourasia et al. PETS'22 (KCD); Tang et al. USENIX Security'22
    (SELENA); Duddu et al. 2020 (Gecko); Papernot et al. ICLR'18 (answers only where teachers agree).
    """

    slug: ClassVar[str] = "crossfit_distillation"
    needs: ClassVar[Needs] = Needs(touches_records_outside_loss=True)

    teacher: Factory
    teachers: int = 10
    excluded: int = 2
    alpha: float = 0.0
    temperature: float = 1.0
    transfer: str = "private"
    schedule: Schedule | None = None
    reference: Float[Tensor, "r ..."] | None = None
    grouped: Int[Tensor, " n"] | None = None
    lesson: tuple[Part, ...] = ()
    mixing: float = 0.0
    answers: str = "soft"
    consensus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse folds that cannot be."""
        problems = []
        if self.teachers < 1:
            problems.append(f"teachers = {self.teachers}: expected at least 1")
        if self.mixing < 0:
            problems.append(f"mixing = {self.mixing}: expected 0 or more")
        if self.excluded and not 0 <= self.excluded < self.teachers:
            problems.append(f"excluded = {self.excluded} of {self.teachers} teachers: each must train on something")
        if self.answers not in ("soft", "vote"):
            problems.append(f"answers = '{self.answers}': expected 'soft' or 'vote'")
        if not 0.0 <= self.consensus < 1.0 or (self.consensus and not self.excluded):
            problems.append(f"consensus = {self.consensus}: expected 0 to below 1, and excluded >= 1 where above 0")
        if self.transfer not in ("private", "reference"):
            problems.append(f"transfer = '{self.transfer}': expected 'private' or 'reference'")
        if self.transfer == "reference" and (self.reference is None or self.excluded):
            problems.append("transfer = 'reference' takes the reference records and excluded = 0")
        if not 0.0 <= self.alpha <= 1.0 or self.temperature <= 0:
            problems.append(f"alpha = {self.alpha}, temperature = {self.temperature}: expected 0..1 and above 0")
        if problems:
            raise ConfigError("this distillation cannot be:\n  " + "\n  ".join(problems))

    def prepare(self, context: Context, population: Population) -> None:
        """Train the teachers and cache their soft labels [S, n, C] by record index."""
        records = context.x if self.reference is None or self.transfer == "private" else self.reference
        if "soft" not in context.memory:
            device = next(iter(population.params.values())).device
            soft = self._labels(context, records, str(device))
            if self.consensus:
                context.memory["agreed"] = agreeing(context.members, soft, self.consensus)
            vote = self.answers == "vote"
            context.memory["soft"] = one_hot(soft.argmax(-1), context.classes).float() if vote else soft
        if self.consensus:
            context.members = context.memory["agreed"]
        if self.transfer == "reference":
            context.x = records
            context.y = torch.zeros(len(records), dtype=torch.int64)
            context.members = torch.ones(len(context.members), len(records), dtype=torch.bool)

    def _labels(self, context: Context, records: Tensor, device: str) -> Tensor:
        hold = held_out(len(context.x), self.teachers, self.excluded, context.seeds[0].child("folds"), self.grouped)
        total = torch.zeros(len(context.members), len(records), context.classes)
        weight = torch.zeros(len(records))
        for k in range(self.teachers):
            soft = self._teach(context, hold[k], k, records, device)
            labels = hold[k].float() if self.excluded else torch.ones(len(records))
            total += soft * labels[None, :, None]
            weight += labels
        return total / weight[None, :, None]

    def _teach(self, context: Context, hold: Tensor, k: int, records: Tensor, device: str) -> Tensor:
        seeds = tuple(seed.child("teacher", k) for seed in context.seeds)
        teacher = Population.initialise(self.teacher, seeds, device)
        lesson = replace(
            context,
            factory=self.teacher,
            members=context.members & ~hold,
            seeds=seeds,
            schedule=self.schedule or context.schedule,
            label=f"{context.label}: teacher {k + 1}/{self.teachers}",
            memory={},
            epoch=0,
        )
        fit(teacher, lesson, [CrossEntropy(), *self.lesson])
        return (teacher.logits(records).cpu() / self.temperature).softmax(-1)

    def augment(self, context: Context, batch: Batch) -> Batch:
        """Attach the soft labels of the batch and, when mixing, blend records and labels pairwise."""
        soft = _soft_labels(context, batch)
        if not self.mixing:
            return replace(batch, target=soft)
        shape = batch.y.shape
        drawn = torch.distributions.Beta(self.mixing, self.mixing).sample(shape).to(soft)
        share = torch.maximum(drawn, 1 - drawn)[..., None]
        partner = torch.randperm(shape[1])
        spread = share.view(*shape, *([1] * (batch.x.dim() - 2)))
        x = spread * batch.x + (1 - spread) * batch.x[:, partner]
        return replace(batch, x=x, target=share * soft + (1 - share) * soft[:, partner])

    def loss(self) -> Loss:
        """Return alpha CE(y) + (1 - alpha) T^2 CE(soft, student / T) per sample."""

        def value(logits: Tensor, batch: Batch, context: Context) -> Tensor:
            soft = _soft_labels(context, batch) if batch.target is None else batch.target
            student = (logits / self.temperature).log_softmax(-1)
            distilled = -(soft * student).sum(-1) * self.temperature**2
            if self.alpha == 0.0:
                return distilled
            task = -logits.log_softmax(-1).gather(-1, batch.y[..., None]).squeeze(-1)
            return self.alpha * task + (1 - self.alpha) * distilled

        return value

    def statement(self, context: Context) -> tuple[Claim, ...]:
        """State what the folds guarantee."""
        if not self.excluded:
            text = "the teacher saw every record it labelled: distillation on the private set is no privacy barrier"
            return (Claim("training records", "holder of the model", text, "measured", "membership audit"),)
        text = (
            f"no teacher labelled a record it was trained on ({self.teachers} teachers, each record held out of "
            f"{self.excluded}); near-duplicates in other folds are not covered"
        )
        if self.consensus:
            text += f"; records on which they agreed below {self.consensus} taught the student nothing"
            text += f" (at least {LEAST_KEPT:.0%} of the records did)"
        return (Claim("training records", "holder of the model", text, "proved", "construction of the folds"),)


def _soft_labels(context: Context, batch: Batch) -> Float[Tensor, "S B C"]:
    rows = batch.index[..., None].expand(-1, -1, context.classes)
    return context.memory["soft"].gather(1, rows).to(batch.x.device)
