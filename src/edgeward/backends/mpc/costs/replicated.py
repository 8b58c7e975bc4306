"""Costs of our engine of three parties: what its plan declares, which equals what its meters count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from edgeward.backends.mpc.costs.dealer import step_macs
from edgeward.backends.mpc.costs.model import COST_MODELS, CostModel, LayerPrice
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.replicated.simulation import cost_tables
from edgeward.backends.mpc.ring import Ring
from edgeward.graph.network import Network


@COST_MODELS.register("3pc")
@final
@dataclass(frozen=True)
class Replicated(CostModel):
    """x = x_0 + x_1 + x_2, each party holds two parts: a product costs one element per result and party, no dealer.

    Rounds are those of the party at the end of the longest chain of messages. The parties send different amounts, the
    first most of a comparison, so that the modelled seconds, which spread the bytes evenly, are too few on slow links.
    """

    slug: ClassVar[str] = "3pc"
    parties: ClassVar[int] = 3
    trust: ClassVar[str] = "semi-honest, one of three parties corrupted, no dealer"
    basis: ClassVar[str] = "declared by the plan, equal to the meters' count (tested)"

    ring: Ring = field(default_factory=Ring)
    layout: Layout = STANDARD

    def layers(self, network: Network, records: int) -> Iterator[LayerPrice]:
        plan = lower(network, records, ring=self.ring, layout=self.layout).plan
        tables = cost_tables(plan)
        longest = max(tables, key=lambda table: table.online.rounds)
        macs = {step.label: 2 * step_macs(step) for step in plan.steps}
        for row, *sent in zip(longest.rows, *(table.rows for table in tables), strict=True):
            yield LayerPrice(
                row.label,
                row.layer,
                row.operator,
                sum(one.online.bytes for one in sent),
                row.online.rounds,
                setup=sum(one.setup.bytes for one in sent),
                macs=macs.get(row.label, 0),
            )
