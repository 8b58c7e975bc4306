"""How far values fill the range in which each step of a plan is right, and the error that says where they do not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.inference.steps_attention import MatrixStep
from edgeward.backends.mpc.inference.steps_linear import Gain, LinearStep, bias_name
from edgeward.backends.mpc.inference.steps_local import (
    AdaptivePoolStep,
    AveragePoolStep,
    LocalStep,
    MeanStep,
    MoveStep,
    PublicGainStep,
    PublicShiftStep,
    SecretShiftStep,
    SumStep,
)
from edgeward.backends.mpc.inference.steps_math import RangedStep, SoftmaxStep, StandardizeStep
from edgeward.backends.mpc.inference.steps_nonlinear import (
    ClipStep,
    MaxPoolStep,
    ProductStep,
    ReluStep,
    SpreadProductStep,
    TruncateStep,
)
from edgeward.backends.mpc.protocols.linear import Use
from edgeward.backends.mpc.protocols.winograd import GROWTH, Winograd
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import DataError

Model = Mapping[str, Elements]
FULL = 1 - 2.0**-14
"""The share of a range at which values are refused: what is truncated on the way may round upwards."""
_WIDE = Ring(64, 0)
_KEPT_BITS = 24
_SHOWN = 5


@final
class OutOfRange(DataError):
    """Values that a secure run would get wrong without notice."""


@final
@dataclass(frozen=True)
class Reach:
    """The largest size of values or results at a step, over the size below which it is right."""

    step: Step
    share: float
    allowed: str
    fix: str

    @property
    def line(self) -> str:
        """Return layer, operator, how far outside, the range, and what to do, in one line."""
        place = self.step.layer or self.step.label
        return f"{place} ({self.step.operator}): {self.share:.3g} times what is right ({self.allowed}) -> {self.fix}"


def refuse(reaches: Sequence[Reach]) -> None:
    """Raise `OutOfRange` naming every layer whose range is filled."""
    wrong = [reach for reach in reaches if not reach.share < FULL]
    if wrong:
        listing = "\n".join(f"    {reach.line}" for reach in wrong[:_SHOWN])
        more = f"\n    and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise OutOfRange(
            f"{len(wrong)} steps leave the range of secure computation, where answers are wrong:\n{listing}{more}",
            expected="sizes below the allowed ones on every record",
            came=", ".join(f"{reach.step.label} ({reach.share:.2g} times)" for reach in wrong[:_SHOWN]),
            fix="scale as said above, the first first: the others may follow from it",
        )


def reaches(
    ring: Ring, step: Step, inputs: Sequence[Shared], outputs: Sequence[Shared], model: Model
) -> Iterator[Reach]:
    """Yield how far `step` fills its range on values in the clear, of which `inputs` are right.

    `outputs` may have wrapped around the ring: results are computed anew with fewer bits where they could have.
    """
    sizes = [_size(ring, x) for x in inputs]
    compared = _compared(ring, step, inputs, sizes)
    if compared is not None:
        yield compared
    if isinstance(step, RangedStep):
        yield _ranged(ring, step, inputs)
    result = _result(ring, step, inputs, sizes, model)
    if result is not None and outputs:
        room = 2.0 ** (ring.bits - 1 - outputs[0].fraction)
        yield Reach(step, result / room, f"results below {room:g}", _FEWER_BITS)


_FEWER_BITS = "scale the values before it, or take fewer fraction bits: ring=Ring(64, 12)"
_WIDER = (
    "scale the values before it, or take a wider comparison: layout=Layout(40), with fewer fraction bits if need be"
)


def _compared(ring: Ring, step: Step, inputs: Sequence[Shared], sizes: Sequence[float]) -> Reach | None:
    """Return how far a comparison or truncation is filled."""
    f, room = ring.fraction, ring.bits - 2 - max((x.fraction for x in inputs), default=0)
    if isinstance(step, MaxPoolStep):
        allowed = 2.0 ** (step.layout.width - 2 - inputs[0].fraction)
        return Reach(step, sizes[0] / allowed, f"sizes below {allowed:g}", _WIDER)
    if isinstance(step, ReluStep | ClipStep):
        reach = sizes[0] + (max(abs(step.low), abs(step.high)) if isinstance(step, ClipStep) else 0.0)
        # What is truncated on the way must also keep within a quarter of the ring.
        allowed = 2.0 ** min(step.layout.width - 1 - f, room if step.shift else math.inf)
        return Reach(step, reach / allowed, f"sizes below {allowed:g}", _WIDER)
    if isinstance(step, TruncateStep):
        return Reach(step, sizes[0] / 2.0**room, f"sizes below {2.0**room:g}", _FEWER_BITS)
    return None


def _ranged(ring: Ring, step: RangedStep, inputs: Sequence[Shared]) -> Reach:
    share = step.filled(ring, inputs)
    if isinstance(step, StandardizeStep):
        return Reach(step, share, "variances below 1024", "scale the values before it, or normalise the records")
    if isinstance(step, SoftmaxStep):
        return Reach(step, share, "values in [-64, 62)", "scale the scores down, or train with smaller ones")
    return Reach(step, share, f"sizes below {_size(ring, inputs[0]) / share:g}" if share else "small sizes", _WIDER)


def _result(ring: Ring, step: Step, inputs: Sequence[Shared], sizes: Sequence[float], model: Model) -> float | None:
    """Return the largest true size of a result that the ring may have wrapped; None where it cannot have."""
    if isinstance(step, LinearStep):
        found = [_linear(ring, step, use, inputs[0], sizes[0], model) for use in step.uses]
        return max((size for size in found if size is not None), default=None)
    if isinstance(step, MatrixStep):
        return _matrices(ring, step, inputs, sizes)
    if isinstance(step, ProductStep | SpreadProductStep):
        return float(np.abs(_number(ring, inputs[0]) * _number(ring, inputs[-1])).max(initial=0))
    return _local(ring, step, inputs, sizes, model) if isinstance(step, LocalStep) else None


def _local(ring: Ring, step: LocalStep, inputs: Sequence[Shared], sizes: Sequence[float], model: Model) -> float | None:
    if isinstance(step, SumStep):
        a, b = (_number(ring, x) for x in inputs)
        return max(*sizes, float(np.abs(a - b if step.minus else a + b).max(initial=0)))
    if isinstance(step, PublicShiftStep):
        return max(abs(step.number), float(np.abs(_number(ring, inputs[0]) + step.number).max(initial=0)))
    if isinstance(step, SecretShiftStep):
        added = _number(ring, Shared(model[step.secret.name], step.secret.fraction))
        return float(np.abs(_number(ring, inputs[0]) + added).max(initial=0))
    if isinstance(step, PublicGainStep):
        return sizes[0] * abs(step.number)
    if isinstance(step, MeanStep | AveragePoolStep | AdaptivePoolStep):
        return _coarse_mean(ring, step, inputs[0])
    # Values of unequal fraction bits are brought to the most.
    return max(sizes) if isinstance(step, MoveStep) and len({x.fraction for x in inputs}) > 1 else None


def _coarse_mean(ring: Ring, step: LocalStep, x: Shared) -> float:
    """Return the largest mean, computed with so many bits less that neither sums nor products leave the ring."""
    drop = ring.fraction
    short = Shared(ring.from_integers(ring.signed(x.elements) >> np.int64(drop)), x.fraction)
    return _size(ring, step.apply(ring, [short], {}, True)) * 2.0**drop


def _matrices(ring: Ring, step: MatrixStep, inputs: Sequence[Shared], sizes: Sequence[float]) -> float | None:
    x, y = step.stacks(inputs)
    scale = step.factor / 2.0**step.places
    room = 2.0 ** (ring.bits - 2 - x.fraction - y.fraction - step.places)
    if sizes[0] * sizes[-1] * x.shape[-1] * scale < room:
        return None
    return float(np.abs(_number(ring, x) @ _number(ring, y)).max(initial=0)) * scale


def _linear(ring: Ring, step: LinearStep, use: Use, x: Shared, size: float, model: Model) -> float | None:
    """Return the largest true result of a layer; None where a bound of it says that nothing wraps."""
    fraction = x.fraction + step.weight_fraction
    bias = model.get(bias_name(use))
    shift = None if bias is None else _number(ring, Shared(bias, fraction))
    weights = Shared(model[use.name], step.weight_fraction)
    terms = 1 if isinstance(use.map, Gain) else math.prod(use.weights) // use.weights[_outputs(use)]
    most = size * _size(ring, weights) * terms * (GROWTH[use.map.tile] if isinstance(use.map, Winograd) else 1)
    if most + (0 if shift is None else float(np.abs(shift).max(initial=0))) < 2.0 ** (ring.bits - 2 - fraction):
        return None
    # As many bits less as keep every sum within 64 bits.
    excess = max(0, math.ceil(math.log2(max(most, 1e-300)) + fraction) - 62)
    drops = (min(excess, max(0, _bits(ring, x) - _KEPT_BITS)), 0)
    drops = (drops[0], excess - drops[0])
    parts = (
        _WIDE.from_integers(ring.signed(part.elements) >> np.int64(drop))
        for part, drop in zip((Shared(x.elements.reshape(step.input), 0), weights), drops, strict=True)
    )
    result = _WIDE.signed(use.map.apply(_WIDE, *parts)) * 2.0 ** (sum(drops) - fraction)
    if shift is not None:
        result = result + shift.reshape((1, -1) + (1,) * (result.ndim - 2))
    return float(np.abs(result).max(initial=0))


def _outputs(use: Use) -> int:
    return 1 if isinstance(use.map, Winograd) else 0


def _bits(ring: Ring, x: Shared) -> int:
    return int(np.abs(ring.signed(x.elements)).max(initial=0)).bit_length()


def _number(ring: Ring, x: Shared) -> np.ndarray:
    return ring.decode(x.elements, x.fraction)


def _size(ring: Ring, x: Shared) -> float:
    return float(np.abs(_number(ring, x)).max(initial=0))
