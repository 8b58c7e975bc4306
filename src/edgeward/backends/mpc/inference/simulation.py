"""Both parties and the dealer in one process: what a deployment would answer and send, with nothing kept secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from typing import final

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.inference.expense import CostTable, cost_table, metered
from edgeward.backends.mpc.inference.lowering import Lowered
from edgeward.backends.mpc.inference.plan import Plan, masks_of
from edgeward.backends.mpc.inference.session import Session
from edgeward.backends.mpc.offline.tuples import Dealer, Supply, supplies_on_demand
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.meter import Reading
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.pair import run_parties

_SECONDS = 600.0


@final
@dataclass(frozen=True, eq=False)
class Simulation:
    """What a simulated run gave: the answer of the records' owner, the declared cost, and what each party counted."""

    answer: Float[np.ndarray, " n *classes"] = field(repr=False)
    declared: CostTable = field(repr=False)
    metered: tuple[CostTable, CostTable] = field(repr=False)

    @property
    def agrees(self) -> bool:
        """Return whether both parties' meters counted the declared bytes and rounds, at every layer."""
        return all(table == self.declared for table in self.metered)


def simulate(
    lowered: Lowered,
    records: Float[np.ndarray, " n *shape"],
    *,
    dealer: Dealer | None = None,
    network: Network | None = None,
) -> Simulation:
    """Run `lowered` on `records` as two parties on two threads, joined by a pair of sockets in this process.

    Guarantee: none about secrecy: one process holds model, records and all masks, and no network is in between. Answer,
    bytes and rounds are those of a deployment against a semi-honest, static party with a trusted offline dealer.
    `network` throttles the pair; `dealer` is a fresh one by default. Cost: memory for the model, five
    times as ring elements, and for the material of one step. Raises: what the first failing party raised.
    """
    plan = lowered.plan
    supplies, sent = _deal(plan, dealer or Dealer(plan.ring))

    def play(channel: Channel) -> tuple[np.ndarray | None, Reading, Reading]:
        me = channel.party
        session = Session(Party(me, plan.ring, channel), plan, supplies[me], lowered.model if me else None)
        request, before = session.prepare_later(), channel.meter.reading()
        answer = session.run(request, None if me else records)
        return answer, before, channel.meter.reading() - before

    (answer, *first), (_, *second) = run_parties(play, play, network=network, timeout=_SECONDS)
    if answer is None:
        raise TypeError("the owner of the records always learns the answer")
    offline = _by_step(plan, sent)
    tables = (metered(plan, first[0], first[1], offline), metered(plan, second[0], second[1], offline))
    return Simulation(answer, cost_table(plan), tables)


def _deal(plan: Plan, dealer: Dealer) -> tuple[tuple[Supply, Supply], list[int]]:
    """Return supplies that are dealt to as the parties draw, and the bytes of corrections of every demand so far."""
    sent: list[int] = []
    return supplies_on_demand(dealer, chain(plan.setup, plan.demands), sent.append), sent


def _by_step(plan: Plan, sent: list[int]) -> dict[str, tuple[int, int]]:
    """Return every step's bytes of corrections, per batch and once."""
    left = iter(sent)
    once = {step.label: sum(islice(left, len(masks_of(step)))) for step in plan.steps}
    batch = {step.label: sum(islice(left, len(step.demands(plan.ring)))) for step in plan.steps}
    return {label: (batch[label], once[label]) for label in once}
