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
from edgeward.backends.tee.release import SplitRelease, release
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.interval import Estimate as Measured
from edgeward.core.units import human
from edgeward.deploy.split import application_name
from edgeward.recipes.mirrornet import Limits, Strategy
from edgeward.report.splits import render_split_card


@final
@dataclass(frozen=True, eq=False)
class SplitMeasurement:
    """One strategy, trained, lowered to int8 and attacked.

    `authorised` is the int8 answer through both worlds on the holdout (the integer reference: the secure world's own
    bits), `estimate` what the emulator expects on the device.
    """

    strategy: Strategy
    deployment: SplitDeployment
    authorised: Measured
    estimate: Estimate
    stealing: StealingReport

    def to_json(self) -> dict[str, Any]:
        """Return the plain form for the report."""
        return {
            "name": self.strategy.name,
            "strategy": self.strategy.to_json(),
            "describe": self.strategy.describe(),
            "authorised_accuracy": self.authorised.to_json(),
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
    def loss(self) -> float:
        """What is given away: the largest stealing ratio over the budgets, infinite where `idle`."""
        return float("inf") if self.idle else self.stealing.worst.ratio_to_black_box.value

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
    """What a split must keep to be chosen: the device's limits, and the largest loss of accuracy."""

    limits: Limits
    victim: Measured
    largest_drop: float

    @property
    def least_accuracy(self) -> float:
        """The lowest authorised accuracy of a split that may be chosen."""
        return self.victim.value - self.largest_drop

    def missed(self, split: SplitMeasurement) -> tuple[str, ...]:
        """Return what `split` misses, in words; empty where it may be chosen."""
        estimate, limits = split.estimate, self.limits
        least, memory = self.least_accuracy, min(limits.secure_ram, estimate.secure_ram_limit)
        found = {
            f"accuracy {split.authorised.value:.1%}, at least {least:.1%}": split.authorised.value >= least,
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
        return min(possible, key=lambda m: (m.loss, -m.authorised.value))

    def _nobody(self, measured: Sequence[SplitMeasurement]) -> NoFeasibleCandidate:
        nearest = min(measured, key=lambda m: (len(self.missed(m)), -m.authorised.value), default=None)
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

    def export(self, folder: Path, storage: DeviceStorage, counter: int | None = None) -> SplitRelease:
        """Write the chosen split and its card to `folder`, its weights sealed for the device that owns `storage`.

        `counter` is the rollback counter of the weights; by default one above what the device accepted last, so that it
        refuses every older bundle of this split once it has run the new one.
        The card lies beside what the manifest names: `edgeward verify` does not cover it, and says so.
        """
        chosen = self.choose()
        if counter is None:
            counter = storage.counter(application_name(chosen.deployment.name)).floor() + 1
        written = release(chosen.deployment, storage.key(), counter, memory_budget=chosen.estimate.secure_ram_limit)
        card = render_split_card(self.report, chosen.strategy.name)
        written.write(folder)
        (folder / "CARD.md").write_text(card, encoding="utf-8", newline="\n")
        return written
