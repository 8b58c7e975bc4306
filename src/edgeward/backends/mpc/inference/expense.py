"""What a plan costs, layer by layer, before anything runs, and what a meter counted of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.inference.plan import RESULT, Plan, masks_of
from edgeward.backends.mpc.party import ProtocolError
from edgeward.backends.mpc.transport.meter import Reading, Traffic
from edgeward.backends.mpc.transport.network import Network


@final
@dataclass(frozen=True)
class LayerCost:
    """The cost of one step, per batch and party: `online` is sent by each; `setup` once for the life of the weights.

    `offline` are the bytes of corrections from the dealer per batch, `offline_setup` once: to the second party, and to
    both together where function keys are compared.
    """

    label: str
    layer: str
    operator: str
    online: Cost = field(default_factory=Cost)
    setup: Cost = field(default_factory=Cost)
    offline: int = 0
    offline_setup: int = 0

    def to_json(self, network: Network | None = None) -> dict[str, Any]:
        """Return a row for printing: payload bytes, rounds, and the modelled seconds of talk on a link."""
        row: dict[str, Any] = {"step": self.label, "layer": self.layer, "operator": self.operator}
        row |= {"bytes": self.online.bytes, "rounds": self.online.rounds}
        row |= {"setup_bytes": self.setup.bytes, "setup_rounds": self.setup.rounds}
        row |= {"offline_bytes": self.offline, "offline_setup_bytes": self.offline_setup}
        if network is not None:
            row["seconds"] = network.seconds(self.online.bytes, self.online.rounds)
        return row


@final
@dataclass(frozen=True)
class CostTable:
    """Rows in the order of the steps, the last for the answer; payload bytes, without frame headers and TLS.

    Declared tables are proved equal to metered ones by nothing but tests: `metered(...) == cost_table(plan)`.
    """

    rows: tuple[LayerCost, ...]
    advice: tuple[str, ...] = field(default=(), compare=False)

    @property
    def online(self) -> Cost:
        """Return what each party sends per batch."""
        return sum((row.online for row in self.rows), Cost())

    @property
    def setup(self) -> Cost:
        """Return what each party sends once."""
        return sum((row.setup for row in self.rows), Cost())

    @property
    def offline(self) -> int:
        """Return the bytes the dealer sends per batch, to both parties together."""
        return sum(row.offline for row in self.rows)

    @property
    def offline_setup(self) -> int:
        """Return the bytes the dealer sends once, to both parties together, seeds apart."""
        return sum(row.offline_setup for row in self.rows)

    def seconds(self, network: Network) -> float:
        """Return the modelled time of the talk of one batch: no computing, both directions at once, no pipelining."""
        return network.seconds(self.online.bytes, self.online.rounds)

    def by_operator(self) -> dict[str, Cost]:
        """Return the online cost per operator, the most bytes first."""
        sums: dict[str, Cost] = {}
        for row in self.rows:
            sums[row.operator] = sums.get(row.operator, Cost()) + row.online
        return dict(sorted(sums.items(), key=lambda item: -item[1].bytes))

    def to_json(self, network: Network | None = None) -> dict[str, Any]:
        """Return rows, sums and advice as plain JSON, with the modelled seconds on `network` if one is given."""
        total: dict[str, Any] = LayerCost(
            "total", "", "", self.online, self.setup, self.offline, self.offline_setup
        ).to_json(network)
        return {
            "rows": [row.to_json(network) for row in self.rows],
            "total": total,
            "advice": list(self.advice),
            "counted": "payload bytes that each party sends; offline: from the dealer to both parties",
            "adversary": "semi-honest, static; the dealer is trusted and offline",
        }


def cost_table(plan: Plan) -> CostTable:
    """Return the declared cost of `plan`, exact in bytes and rounds, without running anything."""
    ring, rows = plan.ring, list[LayerCost]()
    for step in plan.steps:
        demands, masks = step.demands(ring), masks_of(step)
        # All weights are opened in one round, which is counted where the first of them is.
        rounds = int(bool(masks) and not any(row.setup.rounds for row in rows))
        rows.append(
            LayerCost(
                step.label,
                step.layer,
                step.operator,
                sum((demand.cost(ring) for demand in demands), Cost()),
                Cost(sum(mask.cost(ring).bytes for mask in masks), rounds),
                sum(demand.offline_bytes(ring) for demand in demands),
                sum(mask.offline_bytes(ring) for mask in masks),
            )
        )
    return CostTable((*rows, LayerCost(RESULT, "", RESULT, plan.reveal)), _advice(rows))


def metered(plan: Plan, setup: Reading, online: Reading, offline: Mapping[str, tuple[int, int]]) -> CostTable:
    """Return what a party's meter counted, in the rows of `cost_table`.

    `offline` maps the label of a step to the bytes of corrections that were dealt for it, per batch and once. Raises:
    `ProtocolError` for traffic of no step, or that differs in the two directions.
    """
    labels = {label_key(step.label): step for step in plan.steps}
    counts = [_by_step(reading, {*labels, RESULT}) for reading in (setup, online)]
    rows = [
        LayerCost(
            step.label,
            step.layer,
            step.operator,
            counts[1].get(key, Cost()),
            counts[0].get(key, Cost()),
            *offline.get(step.label, (0, 0)),
        )
        for key, step in labels.items()
    ]
    return CostTable((*rows, LayerCost(RESULT, "", RESULT, counts[1].get(RESULT, Cost()))))


def label_key(label: str) -> str:
    """Return the part of a label that names its step: what stands before the colon.

    >>> label_key("12:layer1.0.relu/compare0/open")
    '12'
    """
    return label.split(":", 1)[0]


def _by_step(reading: Reading, known: set[str]) -> dict[str, Cost]:
    sums: dict[str, Traffic] = {}
    for label, traffic in reading.traffic.items():
        key = label_key(label)
        sums[key] = sums.get(key, Traffic()) + traffic
    wrong = [key for key, t in sums.items() if key not in known or t.sent != t.received]
    if wrong:
        raise ProtocolError("traffic that no step declares", expected="equal bytes both ways", came=", ".join(wrong))
    return {key: Cost(t.sent, t.rounds) for key, t in sums.items()}


def _advice(rows: Iterable[LayerCost]) -> tuple[str, ...]:
    """Return which operators to replace, with the share of bytes and rounds that would go."""
    found, total = list(rows), sum((row.online for row in rows), Cost())
    lines = []
    for operator, instead in _CHEAPER.items():
        part = sum((row.online for row in found if row.operator == operator), Cost())
        if part.bytes:
            share = f"{part.bytes / total.bytes:.0%} of the bytes and {part.rounds} of {total.rounds} rounds"
            lines.append(f"{operator}: {share}; {instead}")
    return tuple(lines)


_CHEAPER: Mapping[str, str] = {
    "max_pool2d": "avg_pool2d only truncates: 8 bytes per output and 1 round, or nothing before a rectifier",
    "clip": "relu compares half as many values",
}
