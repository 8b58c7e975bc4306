"""The integer reference: what every kernel computes, in exact vectorised integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Int8

from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.requantise import requantise, rescale_sum
from edgeward.core.errors import DataError

Step: TypeAlias = "Callable[[Operands], np.ndarray]"

# Sums of integers stay exact in float32 below 2^24 and in float64 below 2^53, whatever the order of the additions.
_EXACT32, _EXACT64 = 2**24, 2**53
_CHUNK_BYTES = 12 * 2**20


@final
class Operands:
    """A node as its step sees it: input arrays [n, ...], their values, tensors by role, and the output's value."""

    def __init__(self, graph: IntegerGraph, node: IntegerNode, known: Mapping[str, np.ndarray]) -> None:
        """Look everything up."""
        self.arrays = [known[name] for name in node.inputs]
        self.values = graph.value_of(node.inputs)
        self.output: IntegerValue = graph.values[node.output]
        self.tensors = {role: graph.tensors[key] for role, key in node.tensors.items()}
        self.attributes: Mapping[str, Any] = node.attributes

    def flat(self, index: int) -> np.ndarray:
        """Return an input as [n, elements]."""
        return self.arrays[index].reshape(len(self.arrays[index]), self.values[index].bytes)

    def centred(self, index: int) -> np.ndarray:
        """Return an input as int32 without its zero point."""
        difference: np.ndarray = self.arrays[index].astype(np.int32) - np.int32(self.values[index].zero_point)
        return difference

    def requantised(self, acc: np.ndarray) -> np.ndarray:
        """Apply the node's multiplier, shift and clamp."""
        held = {**self.attributes, **self.tensors}
        bounds = held["low"], held["high"]
        return requantise(acc, held["multiplier"], held["shift"], self.output.zero_point, *bounds)


def run(graph: IntegerGraph, inputs: Mapping[str, Int8[np.ndarray, "n ..."]]) -> dict[str, Int8[np.ndarray, "n ..."]]:
    """Return every output of `graph` for a batch.

    Shapes: one array [n, *shape] per graph input, NHWC; results likewise, an argmax as [n, 4] bytes (`labels` reads
    them). Guarantee: the integers of `INTEGER_OPERATORS`, exactly; matrix products run in floating point only where
    every partial sum is provably representable. Cost: records run in chunks of about 12 MiB.

    Raises: `DataError` when inputs are missing, foreign, not int8, or of another shape.
    """
    records = _checked(graph, inputs)
    pieces = [_chunk(graph, {k: x[i : i + _rows(graph)] for k, x in inputs.items()}) for i in _starts(graph, records)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in graph.outputs}


def labels(argmax: Int8[np.ndarray, "n 4"]) -> np.ndarray:
    """Return the int32 [n] that an argmax wrote as four little-endian bytes."""
    return np.ascontiguousarray(argmax).view("<i4").astype(np.int32)[:, 0]


def _checked(graph: IntegerGraph, inputs: Mapping[str, np.ndarray]) -> int:
    problems = [f"'{name}' is not an input" for name in inputs if name not in graph.inputs]
    for name in graph.inputs:
        shape = graph.values[name].shape
        if name not in inputs:
            problems.append(f"'{name}' is missing")
        elif inputs[name].dtype != np.int8 or tuple(inputs[name].shape[1:]) != shape:
            problems.append(f"'{name}' is {inputs[name].dtype} {list(inputs[name].shape)}, not int8 [n, {shape}]")
    counts = {len(array) for array in inputs.values()}
    problems += [f"the inputs have {sorted(counts)} records"] if len(counts) > 1 else []
    if problems:
        raise DataError(
            "the inputs do not fit the integer graph",
            expected="one int8 array [n, H, W, C] or [n, F] per input",
            came="; ".join(problems),
            fix="convert records with codegen.quantize.to_int8",
        )
    return counts.pop() if counts else 0


def _rows(graph: IntegerGraph) -> int:
    """Return the records per chunk, such that the largest unrolled product stays near the limit."""
    return max(1, _CHUNK_BYTES // max([64, *(_unrolled_bytes(graph, node) for node in graph.nodes)]))


def _unrolled_bytes(graph: IntegerGraph, node: IntegerNode) -> int:
    size = 8 * max(graph.values[node.output].bytes, *(graph.values[v].bytes for v in node.inputs), 1)
    if node.operator != "conv2d":
        return size
    kernel = graph.tensors[node.tensors["weight"]]
    height, width, _ = graph.values[node.output].shape
    groups = int(node.attributes["groups"])
    return size + 5 * height * width * int(np.prod(kernel.shape[1:])) * groups


def _starts(graph: IntegerGraph, records: int) -> range:
    # An empty batch still passes once, for the shapes of its results.
    return range(0, max(records, 1), _rows(graph))


def _chunk(graph: IntegerGraph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    known = dict(inputs)
    last = {name: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    for step, node in enumerate(graph.nodes):
        known[node.output] = STEPS[node.operator](Operands(graph, node, known))
        for name in set(node.inputs) - set(graph.outputs):
            if last[name] == step:
                del known[name]
    return {name: known[name] for name in graph.outputs}


def windows(x: np.ndarray, o: Operands, kernel: tuple[int, int], fill: int) -> Callable[[int, int], np.ndarray]:
    """Return a function of (row, column) in the kernel: the input element that each output position sees there."""
    height, width = o.output.shape[:2]
    (down, right), (dy, dx) = o.attributes["stride"], o.attributes.get("dilation", (1, 1))
    top, left = o.attributes["padding"][:2]
    rows = max(x.shape[1] + top, (height - 1) * down + (kernel[0] - 1) * dy + 1)
    columns = max(x.shape[2] + left, (width - 1) * right + (kernel[1] - 1) * dx + 1)
    padded = np.full((x.shape[0], rows, columns, x.shape[3]), fill, x.dtype)
    padded[:, top : top + x.shape[1], left : left + x.shape[2]] = x

    def at(row: int, column: int) -> np.ndarray:
        y, z = row * dy, column * dx
        return padded[:, y : y + (height - 1) * down + 1 : down, z : z + (width - 1) * right + 1 : right]

    return at


def product(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return int64 rows [m, k] times weight [o, k] transposed; both hold int8."""
    bound = 128 * int(np.abs(weight.astype(np.int64)).sum(1).max(initial=0))
    dtype = np.float32 if bound < _EXACT32 else np.float64
    if bound >= _EXACT64:
        raise OverflowError(f"a sum of {weight.shape[1]} products may exceed 2^53")
    result: np.ndarray = (rows.astype(dtype) @ weight.astype(dtype).T).astype(np.int64)
    return result


def _conv2d(o: Operands) -> np.ndarray:
    weight, groups = o.tensors["weight"], o.attributes["groups"]
    outputs, kernel_height, kernel_width, depth = weight.shape
    height, width, _ = o.output.shape
    at = windows(o.arrays[0], o, (kernel_height, kernel_width), o.values[0].zero_point)
    acc = np.empty((len(o.arrays[0]), height, width, outputs), np.int64)
    per = outputs // groups
    for g in range(groups):
        parts = [at(r, c)[..., g * depth : (g + 1) * depth] for r in range(kernel_height) for c in range(kernel_width)]
        unrolled = np.concatenate(parts, axis=-1).reshape(len(acc) * height * width, len(parts) * depth)
        own = weight[g * per : (g + 1) * per].reshape(per, -1)
        acc[..., g * per : (g + 1) * per] = product(unrolled, own).reshape(*acc.shape[:3], per)
    return o.requantised(acc + o.tensors["bias"])


def _depthwise(o: Operands) -> np.ndarray:
    weight = o.tensors["weight"].astype(np.int32)
    at = windows(o.arrays[0], o, (weight.shape[0], weight.shape[1]), o.values[0].zero_point)
    acc = np.zeros((len(o.arrays[0]), *o.output.shape), np.int64) + o.tensors["bias"]
    for r, c in np.ndindex(*weight.shape[:2]):
        acc += at(r, c) * weight[r, c]
    return o.requantised(acc)


def _linear(o: Operands) -> np.ndarray:
    return o.requantised(product(o.flat(0), o.tensors["weight"]) + o.tensors["bias"])


def _add(o: Operands) -> np.ndarray:
    a = o.attributes
    multipliers = a["multiplier_a"], a["multiplier_b"]
    return rescale_sum(o.centred(0), o.centred(1), multipliers, a["shift"], o.output.zero_point, a["low"], a["high"])


def _max_pool2d(o: Operands) -> np.ndarray:
    kernel = o.attributes["kernel"]
    at = windows(o.arrays[0], o, kernel, -128)
    best: np.ndarray = at(0, 0).copy()
    for r, c in np.ndindex(*kernel):
        np.maximum(best, at(r, c), out=best)
    return best


def _avg_pool2d(o: Operands) -> np.ndarray:
    kernel = o.attributes["kernel"]
    at = windows(o.centred(0), o, kernel, 0)
    acc = np.zeros((len(o.arrays[0]), *o.output.shape), np.int64)
    for r, c in np.ndindex(*kernel):
        acc += at(r, c)
    return o.requantised(acc)


def _shortcut(o: Operands) -> np.ndarray:
    (down, right), before = o.attributes["stride"], o.attributes["before"]
    kept = o.arrays[0][:, ::down, ::right]
    result = np.full((len(kept), *o.output.shape), o.output.zero_point, np.int8)
    result[..., before : before + kept.shape[-1]] = kept
    return result


def _argmax(o: Operands) -> np.ndarray:
    index = o.flat(0).argmax(1)
    written: np.ndarray = index.astype("<i4")[:, None].view(np.int8)
    return written


STEPS: Mapping[str, Step] = {
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "linear": _linear,
    "add": _add,
    "mul": lambda o: o.requantised(o.centred(0) * o.centred(1)),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool": lambda o: o.requantised(o.centred(0).sum((1, 2), dtype=np.int64)),
    "lookup": lambda o: o.tensors["table"][o.arrays[0].astype(np.int16) + 128],
    "concat": lambda o: np.concatenate(o.arrays, axis=-1),
    "shortcut": _shortcut,
    "reshape": lambda o: o.arrays[0].reshape(len(o.arrays[0]), *o.output.shape),
    "argmax": _argmax,
}
