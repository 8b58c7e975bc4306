"""A plan's steps among three parties: what each does and what it declares to send.

The plan is the two parties' one: the model's owner and the records' owner need not know how many will run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.inference.steps_attention import MatrixStep
from edgeward.backends.mpc.inference.steps_linear import LinearStep, bias_name
from edgeward.backends.mpc.inference.steps_local import LocalStep
from edgeward.backends.mpc.inference.steps_math import CurveStep, RowStep, SoftmaxStep, StandardizeStep
from edgeward.backends.mpc.inference.steps_nonlinear import (
    ClipStep,
    MaxPoolStep,
    ProductStep,
    ReluStep,
    SpreadProductStep,
    TruncateStep,
)
from edgeward.backends.mpc.protocols.linear import add_bias
from edgeward.backends.mpc.protocols.presets import tailed
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.replicated.activation import relu, relu_moves
from edgeward.backends.mpc.replicated.curves import activate, activation_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.pooling import clip, max_pool, max_pool_moves
from edgeward.backends.mpc.replicated.products import linear, matrix_multiply, multiply, product_moves
from edgeward.backends.mpc.replicated.schedule import Moves, under
from edgeward.backends.mpc.replicated.softmax import softmax, softmax_moves
from edgeward.backends.mpc.replicated.standardize import standardize, standardize_moves
from edgeward.backends.mpc.replicated.truncation import truncate, truncation_moves
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import UnsupportedOperators

Shares = Mapping[str, Replicated]
"""The model's tensors, by the names of the plan's secrets."""


def run_step(member: Member, step: Step, values: Sequence[Replicated], held: Shares) -> tuple[Replicated, ...]:
    """Return this party's shares of the outputs of `step`. Guarantee: see `Member`. Cost: `step_moves`."""
    if isinstance(step, LocalStep):
        return (_local(member, step, values, held),)
    run, _ = _PROTOCOLS[type(step)]
    return run(member, step, values, held)


def step_moves(ring: Ring, step: Step) -> Moves:
    """Return what the parties send in `step`, labelled as the meters count it."""
    if isinstance(step, LocalStep):
        return ()
    _, moves = _PROTOCOLS[type(step)]
    return under(step.label, moves(ring, step))


def check_plan(plan: Plan) -> None:
    """Refuse steps that three parties have no protocol for, all at once. Raises: `UnsupportedOperators`."""
    missing = [step for step in plan.steps if not isinstance(step, LocalStep) and type(step) not in _PROTOCOLS]
    if missing:
        known = ", ".join(sorted(kind.__name__ for kind in _PROTOCOLS))
        fix = "run it with two parties and a dealer"
        raise UnsupportedOperators(
            [(step.layer, step.operator, fix) for step in missing], expected=f"steps without communication, {known}"
        )


def _local(member: Member, step: LocalStep, values: Sequence[Replicated], held: Shares) -> Replicated:
    """Do what is linear to each of the two shares; constants go to share 0."""
    parts = [value.parts() for value in values]
    added = {secret.name: held[secret.name].parts() for secret in step.secrets()}
    shares = [
        step.apply(member.ring, [part[i] for part in parts], {name: part[i] for name, part in added.items()}, first)
        for i, first in enumerate(member.firsts)
    ]
    return Replicated(shares[0].elements, shares[1].elements, shares[0].fraction)


def _linear(member: Member, step: LinearStep, values: Sequence[Replicated], held: Shares) -> tuple[Replicated, ...]:
    x = values[0]
    seen = Replicated(x.own.reshape(step.input), x.next.reshape(step.input), x.fraction)
    maps, weights = [use.map for use in step.uses], [held[use.name] for use in step.uses]
    results = linear(member, maps, seen, weights, step.label)
    return tuple(
        _biased(member, z, held.get(bias_name(use)), use.map, shape)
        for z, use, shape in zip(results, step.uses, step.shapes, strict=True)
    )


def _biased(member: Member, z: Replicated, bias: Replicated | None, map_: Any, shape: tuple[int, ...]) -> Replicated:
    parts: Sequence[Shared] = z.parts()
    if bias is not None:
        parts = [add_bias(member.ring, map_, *pair) for pair in zip(parts, bias.parts(), strict=True)]
    return Replicated(parts[0].elements.reshape(shape), parts[1].elements.reshape(shape), z.fraction)


def _linear_moves(ring: Ring, step: LinearStep) -> Moves:
    return tuple(move for i, shape in enumerate(step.shapes) for move in product_moves(ring, shape, f"/{i}"))


def _curve(member: Member, step: CurveStep, values: Sequence[Replicated], held: Shares) -> tuple[Replicated, ...]:
    x = truncate(member, values[0], step.shift, f"{step.label}/short")
    return (activate(member, x, tailed(step.activation, member.ring), step.layout, step.label),)


def _curve_moves(ring: Ring, step: CurveStep) -> Moves:
    moves = truncation_moves(ring, step.count, step.shift, "/short")
    return (*moves, *activation_moves(ring, step.count, tailed(step.activation, ring), step.layout))


def _rows(member: Member, step: RowStep, values: Sequence[Replicated], held: Shares) -> tuple[Replicated, ...]:
    x, what = values[0], step.what(member.ring)
    rows = Replicated(x.own.reshape(step.rows, -1), x.next.reshape(step.rows, -1), x.fraction)
    if isinstance(what, Softmax):
        z = softmax(member, rows, what, step.label)
    else:
        z = standardize(member, rows, what, step.label)
    return (Replicated(z.own.reshape(x.shape), z.next.reshape(x.shape), z.fraction),)


def _rows_moves(ring: Ring, step: RowStep) -> Moves:
    what = step.what(ring)
    return softmax_moves(ring, what) if isinstance(what, Softmax) else standardize_moves(ring, what)


def _matrices(member: Member, step: MatrixStep, values: Sequence[Replicated], held: Shares) -> tuple[Replicated, ...]:
    """Multiply the stacks of both factors; what comes before and after is linear and done to each of the two shares."""
    (x, y), (u, v) = (step.stacks(parts) for parts in zip(*(value.parts() for value in values), strict=True))
    left, right = Replicated(x.elements, u.elements, x.fraction), Replicated(y.elements, v.elements, y.fraction)
    own, following = (
        step.scaled(member.ring, part) for part in matrix_multiply(member, left, right, step.label).parts()
    )
    return (Replicated(own.elements, following.elements, own.fraction),)


def _matrices_moves(ring: Ring, step: MatrixStep) -> Moves:
    return product_moves(ring, (*step.left[:-1], step.right[-2 if step.turned else -1]))


_Run = Callable[[Member, Any, Sequence[Replicated], Shares], "tuple[Replicated, ...]"]
_PROTOCOLS: Mapping[type[Step], tuple[_Run, Callable[[Ring, Any], Moves]]] = {
    LinearStep: (_linear, _linear_moves),
    TruncateStep: (
        lambda member, step, values, held: (truncate(member, values[0], step.shift, step.label),),
        lambda ring, step: truncation_moves(ring, step.count, step.shift),
    ),
    CurveStep: (_curve, _curve_moves),
    SoftmaxStep: (_rows, _rows_moves),
    StandardizeStep: (_rows, _rows_moves),
    MatrixStep: (_matrices, _matrices_moves),
    ReluStep: (
        lambda member, step, values, held: (relu(member, values[0], step.shift, step.layout, step.label),),
        lambda ring, step: relu_moves(ring, step.count, step.shift, step.layout),
    ),
    ClipStep: (
        lambda member, step, values, held: (
            clip(member, values[0], (step.low, step.high), step.shift, step.layout, step.label),
        ),
        lambda ring, step: relu_moves(ring, 2 * step.count, step.shift, step.layout),
    ),
    MaxPoolStep: (
        lambda member, step, values, held: (max_pool(member, values[0], step.window, step.layout, step.label),),
        lambda ring, step: max_pool_moves(ring, step.input, step.window, step.layout),
    ),
    ProductStep: (
        lambda member, step, values, held: (multiply(member, values[0], values[-1], step.label),),
        lambda ring, step: product_moves(ring, (step.count,)),
    ),
    SpreadProductStep: (
        lambda member, step, values, held: (multiply(member, values[0], values[1], step.label),),
        lambda ring, step: product_moves(ring, step.shape),
    ),
}
