"""Three parties in one process: what a deployment would answer and send, with nothing kept secret."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.expense import CostTable, LayerCost, label_key
from edgeward.backends.mpc.inference.lowering import Lowered
from edgeward.backends.mpc.inference.plan import RESULT, Plan
from edgeward.backends.mpc.inference.session import Model, encoded
from edgeward.backends.mpc.party import ProtocolError
from edgeward.backends.mpc.replicated.execution import Shares, check_plan, run_step, step_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.neighbours import ChannelNeighbours, run_three
from edgeward.backends.mpc.replicated.schedule import Moves, from_one, play, rotation
from edgeward.backends.mpc.transport.meter import Reading
from edgeward.backends.mpc.transport.network import Network
from edgeward.core.errors import DataError
from edgeward.native.prg import KEY_BYTES

RECORDS, MODEL = 0, 1
"""The numbers of the parties that own the records and the model; party 2 owns neither and only helps."""
INPUT, SEEDS = "input", "seeds"
_SECONDS = 600.0

Tables = tuple[CostTable, CostTable, CostTable]


@final
@dataclass(frozen=True, eq=False)
class TrioSimulation:
    """What a simulated run of three parties gave: the answer of the records' owner, and each party's costs."""

    answer: Float[np.ndarray, " n *classes"] = field(repr=False)
    declared: Tables = field(repr=False)
    metered: Tables = field(repr=False)

    @property
    def agrees(self) -> bool:
        """Return whether every party's meter counted the declared bytes and rounds, at every layer."""
        return self.metered == self.declared

    @property
    def rounds(self) -> int:
        """Return the longest chain of messages of one batch."""
        return max(table.online.rounds for table in self.declared)


def simulate_three(
    lowered: Lowered, records: Float[np.ndarray, " n *shape"], *, network: Network | None = None
) -> TrioSimulation:
    """Run `lowered` on `records` as three parties on three threads, joined by sockets in this process.

    Party 0 owns the records and learns the answer, party 1 owns the model, party 2 only helps. There is no dealer and
    nothing to prepare. Guarantee: none about secrecy, since one process holds everything; answer, bytes and rounds are
    those of a deployment against one semi-honest, static party of three. `network` throttles every link.
    Raises: `UnsupportedOperators` for steps without a protocol among three, what the first failing party raised.
    """
    plan = lowered.plan
    check_plan(plan)

    def party(number: int, link: ChannelNeighbours) -> tuple[np.ndarray | None, Reading, Reading]:
        member = Member(number, plan.ring, link)
        held = hold(member, plan, lowered.model if number == MODEL else None)
        link.meter.begin_rounds()
        before = link.meter.reading()
        answer = answer_batch(member, plan, held, records if number == RECORDS else None)
        return answer, before, link.meter.reading() - before

    results = run_three(party, network=network, timeout=_SECONDS)
    answer = results[RECORDS][0]
    if answer is None:
        raise TypeError("the owner of the records always learns the answer")
    (a, b, c) = (metered_table(plan, setup, online) for _, setup, online in results)
    return TrioSimulation(answer, cost_tables(plan), (a, b, c))


def hold(member: Member, plan: Plan, model: Model | None) -> Shares:
    """Share the model's tensors, once; `model` at its owner and None elsewhere."""
    elements = None if model is None else encoded(plan, model)
    return {
        secret.name: member.enter(
            None if elements is None else elements[secret.name], secret.shape, secret.fraction, MODEL, secret.name
        )
        for secret in plan.secrets
    }


def answer_batch(member: Member, plan: Plan, held: Shares, records: np.ndarray | None) -> np.ndarray | None:
    """Run the network on the records of their owner (None elsewhere); return the answer there and None elsewhere."""
    if records is not None and records.shape != plan.input_shape:
        raise DataError("records do not fit the plan", expected=str(plan.input_shape), came=str(records.shape))
    encoding = None if records is None else plan.ring.encode(records)
    values = {plan.input: member.enter(encoding, plan.input_shape, plan.ring.fraction, RECORDS, INPUT)}
    for step, done in plan.last_use():
        results = run_step(member, step, [values[name] for name in step.inputs], held)
        for name in done:
            del values[name]
        values.update(zip(step.outputs, results, strict=True))
    result: Replicated = values[plan.output]
    opened = member.reveal(result, RECORDS, RESULT)
    return None if opened is None else plan.ring.decode(opened, result.fraction)


def cost_tables(plan: Plan) -> Tables:
    """Return each party's declared cost, exact in bytes and rounds, without running anything.

    The parties send different amounts: party 0 does what a dealer would. Rounds of a layer are those by which the
    longest chain of messages at whose end the party stands grows there; they begin anew after the setup, and with each
    batch.
    """
    check_plan(plan)
    size, setup = plan.ring.element_bytes, list(rotation(KEY_BYTES, SEEDS))
    for secret in plan.secrets:
        setup += from_one(MODEL, math.prod(secret.shape) * size, secret.name)
    online: list[Moves] = [from_one(RECORDS, math.prod(plan.input_shape) * size, INPUT)]
    online += [step_moves(plan.ring, step) for step in plan.steps]
    online.append(from_one((RECORDS + 1) % 3, math.prod(plan.output_shape) * size, RESULT))
    _, before = play(setup)
    _, after = play([move for moves in online for move in moves])
    a, b, c = (metered_table(plan, *readings) for readings in zip(before, after, strict=True))
    return a, b, c


def metered_table(plan: Plan, setup: Reading, online: Reading) -> CostTable:
    """Return the traffic by step, with rows for the seeds, the records and the answer."""
    steps = {label_key(step.label): (step.label, step.layer, step.operator) for step in plan.steps}
    rows = {key: (key, "", key) for key in (SEEDS, INPUT)} | steps | {RESULT: (RESULT, "", RESULT)}
    counts = [_by_key(reading, rows) for reading in (setup, online)]
    return CostTable(
        tuple(
            LayerCost(*names, online=counts[1].get(key, Cost()), setup=counts[0].get(key, Cost()))
            for key, names in rows.items()
        )
    )


def _by_key(reading: Reading, known: dict[str, tuple[str, str, str]]) -> dict[str, Cost]:
    sums: dict[str, Cost] = {}
    for label, traffic in reading.traffic.items():
        key = label_key(label)
        if key not in known:
            raise ProtocolError("traffic that no step declares", expected="a step's label", came=label)
        sums[key] = sums.get(key, Cost()) + Cost(traffic.sent, traffic.rounds)
    return sums
