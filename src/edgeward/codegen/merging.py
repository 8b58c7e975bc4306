"""Merging neighbouring steps: rectifiers, padding and gains move into the layer that can carry them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from edgeward.codegen.step import Step

Merge: TypeAlias = "Callable[[Step, Step], Step | None]"


def merged(steps: Iterable[Step], outputs: Iterable[str]) -> list[Step]:
    """Merge each step with its only reader wherever `MERGES` has a rule, until none applies; then settle the rest.

    Guarantee: the same function in exact arithmetic; values that are `outputs` stay.
    """
    found, kept, before = list(steps), set(outputs), -1
    while len(found) != before:
        before = len(found)
        found = _pass(found, kept)
    return [_settled(step) for step in found]


def _pass(steps: Sequence[Step], kept: Collection[str]) -> list[Step]:
    found, at = list(steps), 0
    while at < len(found):
        reader = _only_reader(found, found[at].output) if found[at].output not in kept else None
        both = None if reader is None else _both(found[at], found[reader])
        if reader is None or both is None:
            at += 1
        else:
            found[reader] = both
            del found[at]
    return found


def _only_reader(steps: Sequence[Step], value: str) -> int | None:
    readers = [i for i, step in enumerate(steps) for name in step.inputs if name == value]
    return readers[0] if len(readers) == 1 else None


def _both(first: Step, second: Step) -> Step | None:
    rule = MERGES.get((first.operator, second.operator))
    joined = rule(first, second) if rule else None
    if joined is None and _function(first) and _function(second):
        joined = replace(first, operator="unary", attributes={"function": _chained(first, second)}, arrays={})
        joined = replace(joined, low=-np.inf, high=np.inf)
    return None if joined is None else replace(joined, output=second.output)


def _bounded(first: Step, second: Step) -> Step:
    """The rectifier `second` moves into `first`."""
    low, high = np.clip([first.low, first.high], second.low, second.high)
    return replace(first, low=float(low), high=float(high))


def _gained(first: Step, second: Step) -> Step | None:
    """The gain and shift `second` move into the weights of the layer `first`."""
    if first.bounded:
        return None
    gain, shift = second.arrays["gain"], second.arrays["shift"]
    arrays = {**first.arrays, "bias": first.arrays["bias"] * gain + shift}
    weight = first.arrays["weight"]
    arrays["weight"] = weight * gain.reshape(-1, *([1] * (weight.ndim - 1)))
    if "scale" in arrays:
        arrays["scale"] = arrays["scale"] * np.abs(gain)
    return replace(first, arrays=arrays, low=second.low, high=second.high)


def _chained_gains(first: Step, second: Step) -> Step | None:
    if first.bounded:
        return None
    gain, shift = second.arrays["gain"], second.arrays["shift"]
    arrays = {"gain": first.arrays["gain"] * gain, "shift": first.arrays["shift"] * gain + shift}
    return replace(second, inputs=first.inputs, arrays=arrays)


def _gained_before(first: Step, second: Step) -> Step | None:
    """The gain and shift `first` move into the weights of the layer `second` that reads them."""
    shift = first.arrays["shift"]
    padded = any(second.attributes.get("padding", ()))
    # A layer's own grid of weights cannot take a gain per input.
    if first.bounded or "scale" in second.arrays or (padded and shift.any()):
        return None
    weight = second.arrays["weight"]
    groups = second.attributes.get("groups", 1)
    # Output o of group g reads the inputs of group g only.
    by_output = [a.reshape(groups, -1).repeat(len(weight) // groups, axis=0) for a in (first.arrays["gain"], shift)]
    trailing = (len(weight), -1, *([1] * (weight.ndim - 2)))
    bias = second.arrays["bias"] + (weight * by_output[1].reshape(trailing)).reshape(len(weight), -1).sum(1)
    arrays = {**second.arrays, "weight": weight * by_output[0].reshape(trailing), "bias": bias}
    return replace(second, inputs=first.inputs, arrays=arrays)


def _padded(first: Step, second: Step) -> Step:
    padding = tuple(a + b for a, b in zip(first.attributes["padding"], second.attributes["padding"], strict=True))
    return replace(second, inputs=first.inputs, attributes={**second.attributes, "padding": padding})


def _shortcuts(first: Step, second: Step) -> Step:
    """Two choices of rows, columns and channels as one."""
    a, b = first.attributes, second.attributes
    stride = (a["stride"][0] * b["stride"][0], a["stride"][1] * b["stride"][1])
    padding = {"before": a["before"] + b["before"], "after": a["after"] + b["after"]}
    return replace(first, attributes={"stride": stride, **padding})


_CARRIERS = ("conv2d", "linear", "affine", "add", "mul", "avg_pool2d", "global_avg_pool", "clamp")
MERGES: Mapping[tuple[str, str], Merge] = {
    **{(carrier, "clamp"): _bounded for carrier in _CARRIERS},
    **{(layer, "affine"): _gained for layer in ("conv2d", "linear")},
    **{("affine", layer): _gained_before for layer in ("conv2d", "linear")},
    **{("pad", window): _padded for window in ("conv2d", "pad", "avg_pool2d")},
    ("affine", "affine"): _chained_gains,
    ("shortcut", "shortcut"): _shortcuts,
    **{(first, "reshape"): lambda first, second: first for first in ("reshape", "global_avg_pool")},
}
"""(operator, operator of its only reader) -> both as one step, or None; it takes the reader's output."""


def _function(step: Step) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the step as a function of one number, if it is the same for every channel."""
    if step.operator == "unary":
        function: Callable[[np.ndarray], np.ndarray] = step.attributes["function"]
        return function
    if step.operator == "clamp":
        return lambda x: np.clip(x, step.low, step.high)
    if step.operator == "affine" and all(np.ptp(a) == 0 for a in step.arrays.values()):
        gain, shift = step.arrays["gain"][0], step.arrays["shift"][0]
        return lambda x: np.clip(gain * x + shift, step.low, step.high)
    return None


def _chained(first: Step, second: Step) -> Callable[[np.ndarray], np.ndarray]:
    inner, outer = _function(first), _function(second)
    if inner is None or outer is None:
        raise TypeError(f"{first.name} and {second.name} are not functions of one number")
    return lambda x: outer(inner(x))


def _settled(step: Step) -> Step:
    """Give a step that found no carrier a form with an integer operator: a table, or a filter of one pixel."""
    if step.operator in ("clamp", "affine") and (function := _function(step)):
        return replace(step, operator="unary", attributes={"function": function}, arrays={}, low=-np.inf, high=np.inf)
    return step
