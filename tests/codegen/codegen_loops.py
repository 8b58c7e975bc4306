"""A second integer interpreter: plain Python integers, one element at a time, from `INTEGER_OPERATORS` alone."""

from itertools import product

import numpy as np

from edgeward.codegen.integer import IntegerGraph, IntegerNode


def clamp(number: int, low: int, high: int) -> int:
    return min(max(number, low), high)


def rescaled(acc: int, multiplier: int, shift: int) -> int:
    """acc multiplier / 2^shift, half up: Python's // rounds towards minus infinity."""
    return (acc * multiplier + (1 << (shift - 1))) // (1 << shift)


class Loops:
    """Interprets a graph for one record; values are nested as flat dictionaries index -> int."""

    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        known = {name: inputs[name].astype(object) for name in self.graph.inputs}
        for node in self.graph.nodes:
            known[node.output] = getattr(self, f"_{node.operator}")(node, *(known[name] for name in node.inputs))
        return {name: known[name].astype(np.int8) for name in self.graph.outputs}

    def held(self, node: IntegerNode, role: str) -> np.ndarray:
        return self.graph.tensors[node.tensors[role]].astype(object)

    def zero(self, name: str) -> int:
        return self.graph.values[name].zero_point

    def empty(self, node: IntegerNode) -> np.ndarray:
        return np.full(self.graph.values[node.output].shape, 0, object)

    def finish(self, node: IntegerNode, acc: int, multiplier: int, shift: int) -> int:
        a = node.attributes
        return clamp(self.zero(node.output) + rescaled(int(acc), int(multiplier), int(shift)), a["low"], a["high"])

    def window(self, node: IntegerNode, x: np.ndarray, row: int, column: int, kernel: tuple[int, int]):
        """Yield (kernel row, kernel column, pixel or None outside the image)."""
        (down, right), (dy, dx) = node.attributes["stride"], node.attributes.get("dilation", (1, 1))
        top, left = node.attributes["padding"][:2]
        for r, c in product(range(kernel[0]), range(kernel[1])):
            i, j = row * down - top + r * dy, column * right - left + c * dx
            inside = 0 <= i < x.shape[0] and 0 <= j < x.shape[1]
            yield r, c, x[i, j] if inside else None

    def _conv2d(self, node, x):
        weight, bias = self.held(node, "weight"), self.held(node, "bias")
        multiplier, shift = self.held(node, "multiplier"), self.held(node, "shift")
        y, pad, depth = self.empty(node), self.zero(node.inputs[0]), weight.shape[3]
        per = len(weight) // node.attributes["groups"]
        for row, column, o in product(*map(range, y.shape)):
            acc, first = bias[o], (o // per) * depth
            for r, c, pixel in self.window(node, x, row, column, weight.shape[1:3]):
                for i in range(depth):
                    acc += weight[o, r, c, i] * (pad if pixel is None else pixel[first + i])
            y[row, column, o] = self.finish(node, acc, multiplier[o], shift[o])
        return y

    def _depthwise(self, node, x):
        weight, bias = self.held(node, "weight"), self.held(node, "bias")
        multiplier, shift = self.held(node, "multiplier"), self.held(node, "shift")
        y, pad = self.empty(node), self.zero(node.inputs[0])
        for row, column, o in product(*map(range, y.shape)):
            acc = bias[o]
            for r, c, pixel in self.window(node, x, row, column, weight.shape[:2]):
                acc += weight[r, c, o] * (pad if pixel is None else pixel[o])
            y[row, column, o] = self.finish(node, acc, multiplier[o], shift[o])
        return y

    def _linear(self, node, x):
        weight, bias = self.held(node, "weight"), self.held(node, "bias")
        multiplier, shift = self.held(node, "multiplier"), self.held(node, "shift")
        y, flat = self.empty(node), x.reshape(-1)
        for o in range(len(weight)):
            acc = bias[o] + sum(weight[o, i] * flat[i] for i in range(len(flat)))
            y[o] = self.finish(node, acc, multiplier[o], shift[o])
        return y

    def _add(self, node, a, b):
        y, n = self.empty(node), node.attributes
        for at in np.ndindex(*y.shape):
            first = (a[at] - self.zero(node.inputs[0])) * n["multiplier_a"]
            second = (b[at] - self.zero(node.inputs[1])) * n["multiplier_b"]
            y[at] = self.finish(node, first + second, 1, n["shift"])
        return y

    def _mul(self, node, a, b):
        y, n = self.empty(node), node.attributes
        for at in np.ndindex(*y.shape):
            other = b[at] if b.shape == a.shape else b[0, 0, at[2]]
            acc = (a[at] - self.zero(node.inputs[0])) * (other - self.zero(node.inputs[1]))
            y[at] = self.finish(node, acc, n["multiplier"], n["shift"])
        return y

    def _max_pool2d(self, node, x):
        y = self.empty(node)
        for row, column, o in product(*map(range, y.shape)):
            seen = [p[o] for _, _, p in self.window(node, x, row, column, node.attributes["kernel"]) if p is not None]
            y[row, column, o] = max(seen)
        return y

    def _avg_pool2d(self, node, x):
        y, n = self.empty(node), node.attributes
        zero = self.zero(node.inputs[0])
        for row, column, o in product(*map(range, y.shape)):
            seen = [p[o] for _, _, p in self.window(node, x, row, column, n["kernel"]) if p is not None]
            y[row, column, o] = self.finish(node, sum(s - zero for s in seen), n["multiplier"], n["shift"])
        return y

    def _global_avg_pool(self, node, x):
        y, n = self.empty(node), node.attributes
        for o in range(len(y)):
            acc = sum(x[i, j, o] - self.zero(node.inputs[0]) for i, j in np.ndindex(*x.shape[:2]))
            y[o] = self.finish(node, acc, n["multiplier"], n["shift"])
        return y

    def _lookup(self, node, x):
        table, y = self.held(node, "table"), self.empty(node)
        for at in np.ndindex(*y.shape):
            y[at] = table[x[at] + 128]
        return y

    def _concat(self, node, *parts):
        return np.concatenate(parts, axis=-1)

    def _shortcut(self, node, x):
        y, n = self.empty(node), node.attributes
        for row, column, o in product(*map(range, y.shape)):
            source = o - n["before"]
            inside = 0 <= source < x.shape[2]
            at = row * n["stride"][0], column * n["stride"][1], source
            y[row, column, o] = x[at] if inside else self.zero(node.output)
        return y

    def _reshape(self, node, x):
        return x.reshape(self.graph.values[node.output].shape)

    def _argmax(self, node, x):
        scores = list(x)
        return np.frombuffer(scores.index(max(scores)).to_bytes(4, "little"), np.int8).astype(object)
