"""`TwoWorlds`: what a candidate has besides its answers where it ships as a split: halves, modelled cost, thefts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from edgeward.attacks.extraction import StealingReport
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.backends.tee.emulator import Estimate
from edgeward.backends.tee.sealing import ENVELOPE_BYTES
from edgeward.backends.tee.secure_steps import steps_of
from edgeward.core.claim import Claim
from edgeward.core.cost import Cost
from edgeward.core.measurement import LayerCost
from edgeward.devices import DeviceProfile
from edgeward.measure.cost import layer_table, network_cost
from edgeward.measure.energy import board_energy_joules

NOT_STOLEN = "the network's function: no stealing audit was asked for (setting `queries` of the recipe)"
_NORMAL = "normal world counted on its graph, secure world on its int8 graph"


@final
@dataclass(frozen=True, eq=False)
class TwoWorlds:
    """The shipped split with what the emulator expects of it; `stealing` is None where no audit was asked for.

    `source` is plain data on how it was made, `trainings` counts those of its halves, `claims` what these state.
    """

    deployment: SplitDeployment
    estimate: Estimate
    stealing: StealingReport | None
    source: dict[str, Any]
    trainings: int
    claims: tuple[Claim, ...] = ()

    def cost(self, artefact: bytes, device: DeviceProfile) -> tuple[Cost, tuple[LayerCost, ...]]:
        """Return what one inference costs over both worlds, and the table of the normal world's layers.

        `artefact` is the normal world's file. Counts that exist in one world alone are left out, so that nothing is
        compared that is half a number.
        """
        from edgeward.codegen.blob import blob_bytes

        split, estimate = self.deployment, self.estimate
        normal, _ = network_cost(split.normal, device)
        steps, sealed = steps_of(split.secure), blob_bytes(split.secure)
        peak = normal["peak_ram_bytes"]
        energy = board_energy_joules(estimate.seconds_total, device)
        source = f"performance emulator, {estimate.basis} figures, {split.transfer}"
        cost = Cost().adding(
            "declared",
            _NORMAL,
            parameters=normal.value("parameters") + sum(t.size for t in split.secure.tensors.values()),
            weight_bytes=normal.value("weight_bytes") + sealed,
            macs=normal.value("macs") + sum(step.macs for step in steps),
            switches=estimate.switches,
        )
        cost = cost.adding("modelled", f"normal world alone: {peak.source}", peak_ram_bytes=peak.value)
        cost = cost.adding(
            "modelled",
            source,
            secure_ram_bytes=estimate.secure_ram_bytes,
            device_latency_seconds=estimate.seconds_total,
            overhead=estimate.overhead,
        )
        cost = cost.adding("modelled", f"{source}; {energy.source}; power x time", energy_joules=energy.value)
        size = len(artefact) + sealed + ENVELOPE_BYTES
        cost = cost.adding("measured", "the normal world's file and the sealed weights", file_bytes=size)
        return cost, layer_table(split.normal)

    def claim(self) -> tuple[Claim, ...]:
        """Return what the halves state, and what the stealing audit measured."""
        if self.stealing is None:
            return self.claims
        budgets = ", ".join(str(result.budget) for result in self.stealing.budgets)
        who = f"owner of the device: reads the normal world, asks for {budgets} labels"
        what = f"stealing audit by {self.stealing.seeds} independent attackers against the black-box attack"
        return (*self.claims, Claim("model weights", who, self.stealing.verdict, "measured", what))

    def extra(self) -> dict[str, Any]:
        """Return the plain form for the report."""
        split = self.deployment
        stolen = None if self.stealing is None else self.stealing.to_json()
        return {
            "split": {
                **self.source,
                "traffic": split.traffic.to_json(),
                "modelled": self.estimate.to_json(),
                "query_limit": split.query_limit,
                "stealing": stolen,
            }
        }

    def untested(self) -> tuple[str, ...]:
        """Return what was not tested of the split itself."""
        return (NOT_STOLEN,) if self.stealing is None else ()
