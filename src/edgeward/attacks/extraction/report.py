"""`StealingReport`: what stealing a split model gains over the black box, per query budget, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from edgeward.attacks.extraction.attacker import Theft
from edgeward.core.interval import Estimate
from edgeward.core.measurement import AttackResult

BLACK_BOX_BAR = 1.05
"""A stolen model may be this many times as accurate as the black-box attack's (TEESlice's criterion)."""


@final
@dataclass(frozen=True)
class OwnChoice:
    """The variant that the attacker's own queries chose, as it could have done; the judge's choice is never worse."""

    attack: str
    accuracy: Estimate
    ratio_to_black_box: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        estimates = {name: getattr(self, name).to_json() for name in ("accuracy", "ratio_to_black_box")}
        return {"attack": self.attack, **estimates}


@final
@dataclass(frozen=True)
class BudgetResult:
    """The best attack at one query budget; `black_box` and `no_shield` are the stolen accuracies of the references.

    `attack` is the strongest in hindsight, judged on the holdout like the references: "black box" is in front where
    ignoring the visible part was the better choice, how queries were chosen behind it where not at random. Ratios are
    stolen accuracy over that of the references, each the best in hindsight, with intervals that take the best anew in
    every draw. `own_choice` is what the attacker itself would have taken. `choosing` is the ratio on the records by
    which splits are chosen, None without such records.
    """

    budget: int
    attack: str
    rate: float
    validation: float
    accuracy: Estimate
    fidelity: Estimate
    black_box: Estimate
    no_shield: Estimate
    ratio_to_black_box: Estimate
    ratio_to_no_shield: Estimate
    theft: Theft
    own_choice: OwnChoice
    choosing: Estimate | None = None

    @property
    def passes(self) -> bool:
        """Whether the ratio to the black box stays within the bar."""
        return self.ratio_to_black_box.value <= BLACK_BOX_BAR

    @property
    def shown(self) -> bool:
        """Whether the whole interval of that ratio does."""
        return self.passes and self.ratio_to_black_box.high <= BLACK_BOX_BAR

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        estimates = ("accuracy", "fidelity", "black_box", "no_shield", "ratio_to_black_box", "ratio_to_no_shield")
        plain = self.theft.to_json()
        return {
            "budget": self.budget,
            "attack": self.attack,
            "rate": self.rate,
            "validation": self.validation,
            **{name: getattr(self, name).to_json() for name in estimates},
            "passes": self.passes,
            "shown": self.shown,
            "own_choice": self.own_choice.to_json(),
            "choosing": None if self.choosing is None else self.choosing.to_json(),
            "tried": plain["tried"],
            "rivals": plain["rivals"],
        }


@final
@dataclass(frozen=True)
class StealingReport:
    """The stealing audit of one split deployment.

    `trusted_disguises` counts tensors that lie outside the secure world in disguise while the attacker's prior is no
    relative of the victim: what was not undone here may be undone with a better prior, so nothing is confidential then.
    `victim_accuracy` is the authorised answer on the holdout; `direct_accuracy` that of the visible part alone and
    `gap` their difference, None with `direct_reason` where the visible part has no answer of its own. `membership` is
    the strongest threshold attack on that answer, None with `membership_reason`. `recovered` is the share of disguised
    rows (kernels) that came back with the public prior, None where nothing was disguised. `direct_choosing` is the
    accuracy of the visible part on the records by which splits are chosen, None without either.
    """

    name: str
    victim_accuracy: Estimate
    direct_accuracy: Estimate | None
    direct_reason: str
    gap: float | None
    budgets: tuple[BudgetResult, ...]
    membership: AttackResult | None
    membership_reason: str
    recovered: float | None
    recovery: tuple[Mapping[str, Any], ...]
    attacker: Mapping[str, Any]
    seeds: int
    victim_queries: int
    trusted_disguises: int = 0
    holdout_records: int = 0
    direct_choosing: Estimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def standing(self) -> Literal["confidential", "not shown", "not confidential"]:
        """What the audit supports.

        "confidential": at every budget the whole interval of the ratio stays within the bar, and that does not rest on
        a mere disguise; "not confidential": somewhere the ratio is above the bar; "not shown": neither, too few holdout
        records (or a disguise before a stranger) leave it open.
        """
        if not all(result.passes for result in self.budgets):
            return "not confidential"
        shown = not self.trusted_disguises and all(result.shown for result in self.budgets)
        return "confidential" if shown else "not shown"

    @property
    def confidential(self) -> bool:
        """Whether `standing` says so."""
        return self.standing == "confidential"

    @property
    def worst(self) -> BudgetResult:
        """The budget with the largest ratio to the black box."""
        return max(self.budgets, key=lambda result: result.ratio_to_black_box.value)

    @property
    def verdict(self) -> str:
        """One sentence: confidential against these attacks at these budgets, or what was measured."""
        worst = self.worst
        ratio, asked = worst.ratio_to_black_box, ", ".join(str(result.budget) for result in self.budgets)
        span = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        if self.confidential:
            return (
                f"confidential: with {asked} label queries no measured attack got more than {span} times the "
                f"accuracy of the black-box attack (at most {BLACK_BOX_BAR} allowed)"
            )
        if self.standing == "not shown" and not self.trusted_disguises:
            open_ends = max(self.budgets, key=lambda result: result.ratio_to_black_box.high).ratio_to_black_box
            return (
                f"not shown to be confidential: no measured attack got more than {span} times the accuracy of the "
                f"black-box attack, but {self.holdout_records} holdout records leave up to {open_ends.high:.2f} open "
                f"(at most {BLACK_BOX_BAR} allowed)"
            )
        if self.standing == "not shown":
            return (
                f"not shown to be confidential: no measured attack got more than {span} times the accuracy of the "
                f"black-box attack, but {self.trusted_disguises} tensors lie outside the secure world in disguise, and "
                "the attacker's public prior is no relative of the victim; with one such disguises have been undone"
            )
        return (
            f"not confidential: with {worst.budget} label queries '{worst.attack}' steals a model of "
            f"{worst.accuracy.value:.1%} accuracy, {span} times the black-box attack's {worst.black_box.value:.1%} "
            f"(at most {BLACK_BOX_BAR} allowed); an unprotected model gives {worst.no_shield.value:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plain form for the report and the card; it holds no record and no weight."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "standing": self.standing,
            "confidential": self.confidential,
            "bar": BLACK_BOX_BAR,
            "victim_accuracy": self.victim_accuracy.to_json(),
            "direct_accuracy": self.direct_accuracy.to_json() if self.direct_accuracy else None,
            "direct_reason": self.direct_reason,
            "gap": self.gap,
            "budgets": [result.to_json() for result in self.budgets],
            "membership": self.membership.to_json() if self.membership else None,
            "membership_reason": self.membership_reason,
            "recovered": self.recovered,
            "recovery": [dict(line) for line in self.recovery],
            "attacker": dict(self.attacker),
            "seeds": self.seeds,
            "victim_queries": self.victim_queries,
            "trusted_disguises": self.trusted_disguises,
            "holdout_records": self.holdout_records,
            "direct_choosing": self.direct_choosing.to_json() if self.direct_choosing else None,
            "notes": list(self.notes),
        }
