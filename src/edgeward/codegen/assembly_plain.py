"""Integer nodes of operators without weights: arithmetic of values, means, tables, parts and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeward.codegen.draft import ASSEMBLIES, Draft, last
from edgeward.codegen.ranges import Grid
from edgeward.codegen.requantise import fixed_point, sum_multipliers
from edgeward.codegen.step import Step


@ASSEMBLIES.register("add")
def add(draft: Draft, step: Step) -> None:
    """Sum or difference of two values."""
    scales, result = draft.scales(step)
    ratios = [sign * scale / result for sign, scale in zip(step.attributes["signs"], scales, strict=True)]
    first, second, shift = sum_multipliers(ratios[0], ratios[1])
    draft.keep_order(step)
    fixed = {"multiplier_a": first, "multiplier_b": second, "shift": shift}
    draft.write(step, "add", {**fixed, **draft.bounds(step)})


@ASSEMBLIES.register("mul")
def mul(draft: Draft, step: Step) -> None:
    """Product of two values."""
    scales, result = draft.scales(step)
    draft.keep_order(step)
    draft.write(step, "mul", {**_fixed(scales[0] * scales[1] / result), **draft.bounds(step)})


def _fixed(ratio: float) -> dict[str, int]:
    multiplier, shift = fixed_point(ratio)
    return {"multiplier": multiplier, "shift": shift}


@ASSEMBLIES.register("avg_pool2d")
@ASSEMBLIES.register("global_avg_pool")
def mean(draft: Draft, step: Step) -> None:
    """Mean over windows or over the whole image."""
    (scale,), result = draft.scales(step)
    whole = draft.network.values[step.inputs[0]].shape[1:]
    count = int(np.prod(step.attributes["kernel"] if step.operator == "avg_pool2d" else whole))
    settings = {**step.attributes, **_fixed(scale / (result * count)), **draft.bounds(step)}
    shape = draft.network.values[step.output].shape
    if step.operator == "avg_pool2d" or len(shape) == 1:
        draft.write(step, step.operator, settings)
        return
    vector = f"{step.name}:vector"
    draft.declare(vector, shape[:1], draft.grids[step.output])
    draft.append(step.name, "global_avg_pool", step.inputs, vector, settings)
    draft.declare(step.output, last(shape), draft.grids[step.output])
    draft.append(f"{step.name}:pixel", "reshape", [vector], step.output, {"shape": last(shape)})


def table(function: Callable[[np.ndarray], np.ndarray], before: Grid, after: Grid) -> np.ndarray:
    """Return int8 [256]: the result for every int8 input, from -128 up."""
    return after.nearest(function(before.real(np.arange(-128, 128))))


@ASSEMBLIES.register("unary")
def unary(draft: Draft, step: Step) -> None:
    """Any function of one number: a table."""
    draft.keep_order(step)
    before, after = draft.grids[step.inputs[0]], draft.grids[step.output]
    draft.write(step, "lookup", {}, {"table": table(step.attributes["function"], before, after)})


@ASSEMBLIES.register("concat")
def concat(draft: Draft, step: Step) -> None:
    """Parts one after the other; a part on another grid passes through a table first."""
    after, names, orders, start = draft.grids[step.output], [], [], 0
    for i, name in enumerate(step.inputs):
        value = draft.values[name]
        if draft.grids[name] != after:
            rescaled = f"{step.name}:part{i}"
            draft.declare(rescaled, value.shape, after)
            tensors = {"table": table(lambda x: x, draft.grids[name], after)}
            draft.append(rescaled, "lookup", [name], rescaled, {}, tensors)
            names.append(rescaled)
        else:
            names.append(name)
        orders.append(start + draft.order.get(name, np.arange(value.shape[-1])))
        start += value.shape[-1]
    if any(name in draft.order for name in step.inputs):
        draft.order[step.output] = np.concatenate(orders)
    draft.write(replace(step, inputs=tuple(names)), "concat")


@ASSEMBLIES.register("reshape")
def reshape(draft: Draft, step: Step) -> None:
    """A view of the same memory; flattening notes the order of the elements."""
    before, after = (draft.network.values[name].shape for name in (step.inputs[0], step.output))
    if len(before) == 3 and len(after) == 1:
        order = np.arange(int(np.prod(before))).reshape(before).transpose(1, 2, 0).reshape(-1)
        draft.order |= {step.output: order} if (np.diff(order) != 1).any() else {}
    elif step.inputs[0] in draft.order:
        draft.order[step.output] = draft.order[step.inputs[0]]
    draft.write(step, "reshape", {"shape": last(after)})


@ASSEMBLIES.register("max_pool2d")
@ASSEMBLIES.register("shortcut")
def same(draft: Draft, step: Step) -> None:
    """An operator that moves elements: the step as it is."""
    draft.write(step, step.operator, step.attributes)
