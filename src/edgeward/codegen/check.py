"""Refuse an integer graph whose emitted C would read or write outside its values, or round differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.codegen.window import image, pair, window_of
from edgeward.core.errors import ModelError

_INPUTS = {"add": 2, "mul": 2}
_SCALED = ("mul", "avg_pool2d", "global_avg_pool")
# The kernels count positions in 32 bits: far below where a product of two of these, or a sum over a window, would wrap.
_LARGEST_SIDE, _LARGEST_VALUE, _LARGEST_FAN_IN = 2**13, 2**30, 2**16
_TYPES = {"weight": np.int8, "bias": np.int32, "multiplier": np.int32, "shift": np.uint8, "table": np.int8}


def check(graph: IntegerGraph) -> None:
    """Check shapes, element types and ranges of every node; all problems in one `ModelError`.

    Guarantee: for a graph that passes, every address the kernels form lies inside the values, the weights and the
    scratch memory they were given (by construction of the kernels, tested with address checks), and 16-bit sums of two
    products do not wrap.
    """
    problems = [f"{node.name} ({node.operator}): {problem}" for node in graph.nodes for problem in _of(graph, node)]
    problems += [f"value {v.name}: shape {v.shape}" for v in graph.values.values() if len(v.shape) not in (1, 3)]
    problems += [f"value {v.name}: shape {v.shape}" for v in graph.values.values() if min(v.shape, default=0) < 1]
    problems += [f"value {v.name}: {v.bytes} bytes" for v in graph.values.values() if v.bytes > _LARGEST_VALUE]
    problems += [
        f"value {v.name}: shape {v.shape}, sides above {_LARGEST_SIDE} or more than 2^23 pixels"
        for v in graph.values.values()
        if len(v.shape) == 3 and (max(v.shape[:2]) > _LARGEST_SIDE or v.shape[0] * v.shape[1] > 2**23)
    ]
    problems += [
        f"value {v.name}: zero point {v.zero_point}" for v in graph.values.values() if not -128 <= v.zero_point <= 127
    ]
    if problems:
        raise ModelError(
            "the integer graph cannot be emitted:\n  " + "\n  ".join(problems),
            expected="shapes that follow from the operators, and numbers in the ranges of `INTEGER_OPERATORS`",
            fix="report the network if `edgeward.codegen.quantize` made this graph",
        )


def _of(graph: IntegerGraph, node: IntegerNode) -> Iterator[str]:
    wanted = _INPUTS.get(node.operator, 1)
    if node.operator != "concat" and len(node.inputs) != wanted:
        yield f"{len(node.inputs)} inputs, expected {wanted}"
        return
    wrong = [r for r, key in node.tensors.items() if graph.tensors[key].dtype != _TYPES[r]]
    if wrong:
        yield "tensors of another type: " + ", ".join(wrong)
        return
    try:
        came, right = graph.values[node.output].shape, _output_shape(graph, node)
    except (ValueError, IndexError, TypeError, ZeroDivisionError):
        yield "inputs, tensors or attributes of the wrong form"
        return
    same_size = node.operator in ("reshape", "argmax") or tuple(came) == right
    if int(np.prod(came)) != int(np.prod(right)) or not same_size:
        yield f"output shape {tuple(came)}, expected {right}"
    yield from _tensors(graph, node)
    yield from _numbers(node)


def _output_shape(graph: IntegerGraph, node: IntegerNode) -> tuple[int, ...]:
    shapes = [tuple(v.shape) for v in graph.value_of(node.inputs)]
    shape, operator = shapes[0], node.operator
    height, width, channels = image(shape)
    if operator in ("conv2d", "depthwise", "max_pool2d", "avg_pool2d"):
        window = window_of(graph, node)
        numbers = *window.stride, *window.dilation, *window.kernel
        if min(numbers) < 1 or min(window.padding) < 0 or max(*numbers, *window.padding) > _LARGEST_SIDE:
            raise ValueError
        outputs = graph.tensors[node.tensors["weight"]].shape[0] if operator == "conv2d" else channels
        return (*window.size(height, width), int(outputs))
    if operator == "linear":
        return (int(graph.tensors[node.tensors["weight"]].shape[0]),)
    if operator == "global_avg_pool":
        return (channels,)
    if operator == "concat":
        if any(s[:-1] != shape[:-1] for s in shapes):
            raise ValueError
        return (*shape[:-1], sum(s[-1] for s in shapes))
    if operator == "shortcut":
        rows, columns = pair(node.attributes["stride"])
        before, after = int(node.attributes["before"]), int(node.attributes["after"])
        if min(rows, columns) < 1 or max(rows, columns) > _LARGEST_SIDE or min(before, after) < 0:
            raise ValueError
        return -(-height // rows), -(-width // columns), before + channels + after
    if operator == "add" and shapes[1] != shape:
        raise ValueError
    if operator == "mul" and shapes[1] != shape and int(np.prod(shapes[1])) != channels:
        raise ValueError
    return (4,) if operator == "argmax" else shape


def _tensors(graph: IntegerGraph, node: IntegerNode) -> Iterator[str]:
    found = {role: graph.tensors[key] for role, key in node.tensors.items()}
    height, width, channels = image(graph.values[node.inputs[0]].shape)
    if node.operator == "conv2d":
        groups, weight = int(node.attributes["groups"]), found["weight"].shape
        if len(weight) != 4 or groups < 1 or weight[3] * groups != channels or weight[0] % groups:
            yield f"weight {weight} with {groups} groups does not fit {channels} channels"
    if node.operator == "depthwise" and (found["weight"].ndim != 3 or found["weight"].shape[2] != channels):
        yield f"weight {found['weight'].shape} does not fit {channels} channels"
    if node.operator == "linear" and found["weight"].shape[1:] != (height * width * channels,):
        yield f"weight {found['weight'].shape} does not fit {height * width * channels} features"
    if node.operator == "lookup" and found["table"].shape != (256,):
        yield f"table {found['table'].shape}, expected (256,)"
    if "weight" in found:
        outputs = image(graph.values[node.output].shape)[2]
        yield from (
            f"{role} {found[role].shape}, expected ({outputs},)"
            for role in ("bias", "multiplier", "shift")
            if found[role].shape != (outputs,)
        )
        if found["weight"].size and int(found["weight"].min()) < -127:
            yield "a weight of -128, expected -127..127"
        yield from _sums(found, node)
        if found["shift"].size and not 1 <= int(found["shift"].min()) <= int(found["shift"].max()) <= 62:
            yield "a shift outside 1..62"


def _sums(found: Mapping[str, np.ndarray], node: IntegerNode) -> Iterator[str]:
    """Yield where a 32-bit sum could wrap: the products of one output with any input, together with its bias."""
    weight = found["weight"]
    across = node.operator == "depthwise"
    terms = weight.reshape(-1, weight.shape[-1]).T if across else weight.reshape(len(weight), -1)
    largest = 128 * np.abs(terms.astype(np.int64)).sum(1)
    if terms.shape[1] > _LARGEST_FAN_IN:
        yield f"{terms.shape[1]} products per output, at most {_LARGEST_FAN_IN}"
    if largest.shape == found["bias"].shape and (largest + np.abs(found["bias"].astype(np.int64)) >= 2**31).any():
        yield "sums that may exceed 32 bits"


def _numbers(node: IntegerNode) -> Iterator[str]:
    numbers = node.attributes
    if "low" in numbers and not -128 <= int(numbers["low"]) <= int(numbers["high"]) <= 127:
        yield f"limits {numbers['low']}..{numbers['high']} outside int8"
    if node.operator in _SCALED and not (1 <= numbers["shift"] <= 62 and abs(numbers["multiplier"]) < 2**31):
        yield "multiplier or shift out of range"
    if node.operator == "add" and not (
        1 <= numbers["shift"] <= 30 and max(abs(numbers["multiplier_a"]), abs(numbers["multiplier_b"])) < 2**21
    ):
        yield "multipliers at or above 2^21, or a shift outside 1..30"
