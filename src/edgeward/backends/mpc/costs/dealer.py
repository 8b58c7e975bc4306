"""Costs of our engine with a dealer: what its plan declares, which equals what its meters count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from edgeward.backends.mpc.costs.model import COST_MODELS, CostModel, LayerPrice
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.inference.steps_linear import LinearStep
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.protocols.linear import Use
from edgeward.backends.mpc.protocols.winograd import Winograd
from edgeward.backends.mpc.ring import Ring
from edgeward.graph.network import Network


@COST_MODELS.register("dealer")
@final
@dataclass(frozen=True)
class DealerModel(CostModel):
    """Two parties and a trusted dealer who is offline while they run: the engine of this package."""

    slug: ClassVar[str] = "dealer"
    trust: ClassVar[str] = "semi-honest, one of two parties corrupted, dealer trusted and offline"
    basis: ClassVar[str] = "declared by the plan, equal to the meter's count (tested)"

    ring: Ring = field(default_factory=Ring)
    layout: Layout = STANDARD

    def layers(self, network: Network, records: int) -> Iterator[LayerPrice]:
        plan = lower(network, records, ring=self.ring, layout=self.layout).plan
        macs = {step.label: step_macs(step) for step in plan.steps}
        for row in cost_table(plan).rows:
            yield LayerPrice(
                row.label,
                row.layer,
                row.operator,
                2 * row.online.bytes,
                row.online.rounds,
                row.offline,
                2 * row.setup.bytes + row.offline_setup,
                macs.get(row.label, 0),
            )


def step_macs(step: Step) -> int:
    """Return the multiply-accumulates with weights of one step."""
    return sum(_of_use(step, use) for use in step.uses) if isinstance(step, LinearStep) else 0


def _of_use(step: LinearStep, use: Use) -> int:
    shape = use.map.output_shape(step.input, use.weights)
    if isinstance(use.map, Winograd):
        tiles = math.prod(-(-extent // use.map.tile) for extent in shape[2:])
        return shape[0] * tiles * math.prod(use.weights)
    inner = use.weights[1:] if len(use.weights) in (2, 4) and len(shape) == len(use.weights) else ()
    return math.prod(shape) * math.prod(inner)
