"""`MirrorResult`: what was measured of each split of a network, and which one is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from edgeward.attacks.extraction import StealingReport
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.emulator import Estimate
from edgeward.backends.tee.release import SplitRelease
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.interval import Estimate as Measured
from edgeward.core.units import human
from edgeward.recipes.mirrornet import Limits, Strategy
from edgeward.split_export import export_split


@final
@dataclass(frozen=True, eq=False)
class SplitMeasurement:
    """One strategy, trained, lowered to int8 and attacked.

    `authorised` is the int8 answer through both worlds on the holdout (the integer reference: the secure world's own
    bits), `validated` the same on the records that choose, None where the holdout has to (nothing else was given);
    `estimate` what the emulator expects on the device.
    """

    strategy: Strategy
    deployment: SplitDeployment
    authorised: Measured
    estimate: Estimate
    stealing: StealingReport
    validated: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plain form for the report."""
        return {
            "name": self.strategy.name,
            "strategy": self.strategy.to_json(),
            "describe": self.strategy.describe(),
            "authorised_accuracy": self.authorised.to_json(),
            "validated_accuracy": None if self.validated is None else self.validated.to_json(),
            "traffic": self.deployment.traffic.to_json(),
            "modelled": self.estimate.to_json(),
            "stealing": self.stealing.to_json(),
            "verdict": self.verdict,
            "confidential": self.confidential,
        }

    @property
    def idle(self) -> bool:
        """Whether the visible part alone answers as well as both worlds together: the secure part hides nothing then.

        The audit lets a thief choose by the authorised answers, so that it cannot tell where those are the poorer ones.
        """
        direct = self.stealing.direct_accuracy
        return direct is not None and direct.value >= self.authorised.value

    @property
    def confidential(self) -> bool:
        """Whether the audit says so, of a split whose secure part adds something."""
        return self.stealing.confidential and not self.idle

    @property
    def choosing_accuracy(self) -> float:
        """The authorised accuracy by which splits are chosen."""
        return (self.validated or self.authorised).value

    @property
    def loss(self) -> float:
        """What is given away, by the records that choose: the largest stealing ratio, infinite where `idle` there."""
        direct = self.stealing.direct_choosing or self.stealing.direct_accuracy
        if direct is not None and direct.value >= self.choosing_accuracy:
            return float("inf")
        return max((found.choosing or found.ratio_to_black_box).value for found in self.stealing.budgets)

    @property
    def verdict(self) -> str:
        """One sentence: that of the audit, unless the visible part alone is enough."""
        direct = self.stealing.direct_accuracy
        if direct is None or not self.idle:
            return self.stealing.verdict
        return (
            f"not confidential: the normal world alone answers with {direct.value:.1%}, both worlds together with "
            f"{self.authorised.value:.1%}; it can be taken as it is, without any label query"
        )


@final
@dataclass(frozen=True)
class Terms:
    """What a split must keep to be chosen: the device's limits, and the largest loss of accuracy.

    `victim` is the unprotected network's accuracy on the holdout, `validated` that on the records that choose.
    """

    limits: Limits
    victim: Measured
    largest_drop: float
    validated: Measured | None = None

    @property
    def least_accuracy(self) -> float:
        """The lowest authorised accuracy of a split that may be chosen, on the records that choose."""
        return (self.validated or self.victim).value - self.largest_drop

    def missed(self, split: SplitMeasurement) -> tuple[str, ...]:
        """Return what `split` misses, in words; empty where it may be chosen."""
        estimate, limits = split.estimate, self.limits
        least, memory = self.least_accuracy, min(limits.secure_ram, estimate.secure_ram_limit)
        found = {
            f"accuracy {split.choosing_accuracy:.1%}, at least {least:.1%}": split.choosing_accuracy >= least,
            f"secure RAM {human(estimate.secure_ram_bytes, 'B')}, at most {human(memory, 'B')}": estimate.fits
            and estimate.secure_ram_bytes <= limits.secure_ram,
            f"overhead {estimate.overhead:.2%}, at most {limits.overhead:.2%}": estimate.overhead <= limits.overhead,
            f"switches {estimate.switches}, at most {limits.switches}": estimate.switches <= limits.switches,
        }
        return tuple(text for text, kept in found.items() if not kept)

    def choose(self, measured: Sequence[SplitMeasurement]) -> SplitMeasurement:
        """Return the split that gives least away among those within the limits. Raises: `NoFeasibleCandidate`."""
        possible = [split for split in measured if not self.missed(split)]
        if not possible:
            raise self._nobody(measured)
        return min(possible, key=lambda m: (m.loss, -m.choosing_accuracy))

    def _nobody(self, measured: Sequence[SplitMeasurement]) -> NoFeasibleCandidate:
        nearest = min(measured, key=lambda m: (len(self.missed(m)), -m.choosing_accuracy), default=None)
        return NoFeasibleCandidate(
            f"none of {len(measured)} splits keeps every limit",
            expected=f"accuracy of at least {self.least_accuracy:.1%} within the device's limits",
            came="nothing was measured"
            if nearest is None
            else f"nearest: {nearest.strategy.name} with {'; '.join(self.missed(nearest))}",
            fix="allow more overhead, secure memory or loss of accuracy, train longer, or choose another preset",
        )


@final
@dataclass(frozen=True, eq=False)
class MirrorResult:
    """All strategies measured, what they had to keep, and the report written of them."""

    measured: tuple[SplitMeasurement, ...]
    terms: Terms
    report: Mapping[str, Any]
    workdir: Path

    @property
    def victim_accuracy(self) -> Measured:
        """The accuracy of the network itself, in one world."""
        return self.terms.victim

    def choose(self) -> SplitMeasurement:
        """Return the split that gives least away among those within the limits; ties go to the more accurate one.

        Raises: `NoFeasibleCandidate` naming the nearest miss where none keeps every limit.
        """
        return self.terms.choose(self.measured)

    def export(
        self, folder: Path, storage: DeviceStorage, counter: int | None = None, identity: str = ""
    ) -> SplitRelease:
        """Write the chosen split and its card to `folder`, its weights sealed for the device that owns `storage`.

        `counter` is the rollback counter of the weights; by default one above what the device accepted last, so that it
        refuses every older bundle of this deployment once it has run the new one. `identity` names the deployment over
        its releases; by default that of the bundle in `folder`, or the one that `workdir` keeps.
        """
        return export_split(
            self.choose(), self.report, self.workdir, folder, storage, counter=counter, identity=identity
        )
