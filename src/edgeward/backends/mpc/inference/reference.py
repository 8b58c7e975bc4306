"""A plan in the clear: the integers that the protocols must reproduce, and whether values keep inside the ring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.ranges import OutOfRange as OutOfRange
from edgeward.backends.mpc.inference.ranges import Reach, reaches, refuse
from edgeward.backends.mpc.inference.session import Model, encoded
from edgeward.backends.mpc.inference.step import Masks, Step
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, expand_fields
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.simulator import Simulator
from edgeward.core.errors import DataError


def compute(
    plan: Plan, model: Model, records: Float[np.ndarray, " n *shape"], masks: Masks | None = None
) -> np.ndarray:
    """Return what the plan computes, by one trusted computer.

    `masks` are the dealer's in the order of `plan.demands` (`dealt_masks`): then the result is that of the protocols,
    bit for bit; without, every truncation rounds down, and the protocols may lie one unit above at each.
    """
    return _last(plan, _values(plan, encoded(plan, model), records, masks))


def dealt_masks(dealer: Dealer, ring: Ring, demands: Sequence[Demand], start: int) -> Iterator[np.ndarray | None]:
    """Yield the masks that `dealer` dealt for `demands`, the first of them at place `start` (the tests' oracle)."""
    for place, demand in enumerate(demands, start):
        fields = demand.fields(ring)
        first, second = (expand_fields(seed, place, fields) for seed in dealer.seeds)
        yield next((f.combine(first[f.name], second[f.name]) for f in fields if f.name == "mask"), None)


Ran: TypeAlias = "tuple[Step, list[Shared], tuple[Shared, ...]]"
"""A step, what it read and what it wrote."""


def check_range(plan: Plan, model: Model | None, records: Float[np.ndarray, " n *shape"]) -> dict[str, float]:
    """Return, per step that has a range, the largest size seen over the size allowed (below 1 is right).

    Records may be any number. Without `model`, as their owner has none, only the steps are looked at that follow from
    the records alone: those before the first weights. Guarantee: for these records only (measured); nothing leaves the
    process. Cost: one pass of the plan in the clear. Raises: `OutOfRange` naming every layer at or above 1, its range
    and what to do; `DataError`.
    """
    seen: dict[str, Reach] = {}
    tensors = None if model is None else encoded(plan, model)
    for batch in _batches(plan, records):
        for step, inputs, outputs in _values(plan, tensors, batch, None):
            for reach in reaches(plan.ring, step, inputs, outputs, tensors or {}):
                known = seen.get(step.label)
                seen[step.label] = reach if known is None or not reach.share <= known.share else known
    refuse(list(seen.values()))
    return {label: reach.share for label, reach in seen.items()}


def _batches(plan: Plan, records: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches of the plan's size, the last one filled up with the last record."""
    size = plan.input_shape[0]
    if records.shape[1:] != plan.input_shape[1:] or not len(records):
        raise DataError("records do not fit the plan", expected=str(plan.input_shape), came=str(records.shape))
    for start in range(0, len(records), size):
        part = records[start : start + size]
        yield part if len(part) == size else np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])


def _values(
    plan: Plan, tensors: Mapping[str, Elements] | None, records: np.ndarray, masks: Masks | None
) -> Iterator[Ran]:
    """Yield (step, inputs, outputs) in turn: of every step, or without the model's tensors of all that need none."""
    if records.shape != plan.input_shape:
        raise DataError("records do not fit the plan", expected=str(plan.input_shape), came=str(records.shape))
    simulator, source = Simulator(plan.ring), repeat(None) if masks is None else masks
    values = {plan.input: Shared(plan.ring.encode(records), plan.ring.fraction)}
    for step, done in plan.last_use():
        unknown = tensors is None and (step.secrets() or not values.keys() >= set(step.inputs))
        if not unknown:
            inputs = [values[name] for name in step.inputs]
            outputs = step.clear(simulator, inputs, tensors or {}, source)
            values.update(zip(step.outputs, outputs, strict=True))
            yield step, inputs, outputs
        for name in done:
            values.pop(name, None)


def _last(plan: Plan, run: Iterator[Ran]) -> np.ndarray:
    found = {name: value for step, _, outputs in run for name, value in zip(step.outputs, outputs, strict=True)}
    answer = found[plan.output]
    return plan.ring.decode(answer.elements, answer.fraction)
