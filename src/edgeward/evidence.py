"""The evidence of a run: the report of everything measured so far, and the card of one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from edgeward.core.budget import Budget
from edgeward.core.frontier import Frontier, Measured
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits
from edgeward.devices import DeviceProfile
from edgeward.measure.fingerprint import environment
from edgeward.report.card import render_card
from edgeward.report.document import build_report, write_report
from edgeward.search import Failure


@final
@dataclass(frozen=True)
class Evidence:
    """What a report says besides the measurements: the job, the data's description, the device and the threat."""

    job: Mapping[str, Any]
    splits: Splits
    device: DeviceProfile
    threat: MembershipInference
    command: str

    def report(self, frontier: Frontier, failures: Sequence[Failure] = (), *, finished: bool = True) -> dict[str, Any]:
        """Return the run so far as plain JSON; counts and hashes of the records, never a record."""
        data = {
            "name": self.splits.name,
            "classes": self.splits.classes,
            "counts": self.splits.counts(),
            "digest": self.splits.digest,
            "notes": list(self.splits.notes),
        }
        return build_report(
            frontier=frontier,
            job=self.job,
            environment=environment(),
            data=data,
            device=self.device.to_json(),
            threats=[self.threat.to_json()],
            failed=[failure.to_json() for failure in failures],
            command=self.command,
            finished=finished,
        )

    def write(
        self, folder: Path, frontier: Frontier, failures: Sequence[Failure] = (), *, finished: bool
    ) -> dict[str, Any]:
        """Write report.json, report.html and CARD.md into `folder` and return the report."""
        report = self.report(frontier, failures, finished=finished)
        write_report(folder, report)
        return report

    def card(self, measured: Measured) -> str:
        """Return the card of one candidate on its own, without a budget: what travels inside its bundle."""
        alone = self.report(Frontier((measured,), Budget()))
        return render_card(alone, measured.candidate.digest)
