"""A plan in the clear: the integers that the protocols must reproduce, and whether values keep inside the ring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.session import Model, encoded
from edgeward.backends.mpc.inference.step import Masks, Step
from edgeward.backends.mpc.inference.steps_local import SumStep
from edgeward.backends.mpc.inference.steps_math import RangedStep
from edgeward.backends.mpc.inference.steps_nonlinear import ClipStep, MaxPoolStep, ReluStep, TruncateStep
from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, expand_fields
from edgeward.backends.mpc.ring import Ring
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
    return _last(plan, _values(plan, model, records, masks))


def dealt_masks(dealer: Dealer, ring: Ring, demands: Sequence[Demand], start: int) -> Iterator[np.ndarray | None]:
    """Yield the masks that `dealer` dealt for `demands`, the first of them at place `start` (the tests' oracle)."""
    for place, demand in enumerate(demands, start):
        fields = demand.fields(ring)
        first, second = (expand_fields(seed, place, fields) for seed in dealer.seeds)
        yield next((f.combine(first[f.name], second[f.name]) for f in fields if f.name == "mask"), None)


Ran: TypeAlias = "tuple[Step, list[Shared], tuple[Shared, ...]]"
"""A step, what it read and what it wrote."""


@final
class OutOfRange(DataError):
    """Values that a secure run would get wrong without notice."""


def check_range(plan: Plan, model: Model, records: Float[np.ndarray, " n *shape"]) -> dict[str, float]:
    """Return, per comparison, truncation and sum, the largest size seen over the size allowed (below 1 is right).

    Guarantee: for these records only (measured); what a product itself lets wrap around the ring looks like any other
    number here, and is found only by its size. Raises: `OutOfRange` naming every step at or above 1.
    """
    seen = dict(_shares(plan, model, records))
    wrong = [f"{step} ({share:.2g} times)" for step, share in seen.items() if share >= 1]
    if wrong:
        raise OutOfRange(
            f"{len(wrong)} steps leave the range of the comparison or the ring",
            expected="sizes below the allowed one on every record",
            came=", ".join(wrong[:5]),
            fix="take fewer fraction bits or a wider comparison: lower(..., layout=Layout(40))",
        )
    return seen


def _shares(plan: Plan, model: Model, records: np.ndarray) -> Iterator[tuple[str, float]]:
    f, bits = plan.ring.fraction, plan.ring.bits
    for step, inputs, _ in _values(plan, model, records, None):
        sizes = [float(np.abs(plan.ring.decode(x.elements, x.fraction)).max(initial=0)) for x in inputs]
        size = max(sizes, default=0.0)
        if isinstance(step, MaxPoolStep):
            yield step.label, size / 2.0 ** (step.layout.width - 2 - inputs[0].fraction)
        elif isinstance(step, ReluStep | ClipStep):
            reach = size + max(abs(step.low), abs(step.high)) if isinstance(step, ClipStep) else size
            # What is truncated on the way must also keep within a quarter of the ring.
            allowed = step.layout.width - 1 - f, bits - 2 - inputs[0].fraction
            yield step.label, reach / 2.0 ** (min(allowed) if step.shift else allowed[0])
        elif isinstance(step, SumStep):
            # The input with fewer fraction bits is given those of the other.
            yield step.label, sum(sizes) / 2.0 ** (bits - 1 - max(x.fraction for x in inputs))
        elif isinstance(step, RangedStep):
            yield step.label, step.filled(plan.ring, inputs)
        elif isinstance(step, TruncateStep):
            yield step.label, size / 2.0 ** (bits - 2 - inputs[0].fraction)


def _values(plan: Plan, model: Model, records: np.ndarray, masks: Masks | None) -> Iterator[Ran]:
    """Yield (step, inputs, outputs) of every step in turn."""
    if records.shape != plan.input_shape:
        raise DataError("records do not fit the plan", expected=str(plan.input_shape), came=str(records.shape))
    simulator, tensors = Simulator(plan.ring), encoded(plan, model)
    source = repeat(None) if masks is None else masks
    values = {plan.input: Shared(plan.ring.encode(records), plan.ring.fraction)}
    for step in plan.steps:
        inputs = [values[name] for name in step.inputs]
        outputs = step.clear(simulator, inputs, tensors, source)
        values.update(zip(step.outputs, outputs, strict=True))
        yield step, inputs, outputs


def _last(plan: Plan, run: Iterator[Ran]) -> np.ndarray:
    found = {name: value for step, _, outputs in run for name, value in zip(step.outputs, outputs, strict=True)}
    answer = found[plan.output]
    return plan.ring.decode(answer.elements, answer.fraction)
