"""Random integer graphs: any number of unconnected nodes, each with inputs and an output of its own."""

from __future__ import annotations

import numpy as np

from edgeward.codegen.integer import INTEGER_OPERATORS, IntegerGraph, IntegerNode, IntegerValue

OPERATORS = tuple(sorted(INTEGER_OPERATORS))


class Zoo:
    """Collects nodes; every number is drawn from one generator."""

    def __init__(self, seed: int, largest: int = 40) -> None:
        self.draws = np.random.default_rng(seed)
        self.largest = largest
        self.inputs, self.outputs, self.nodes = [], [], []
        self.values, self.tensors = {}, {}

    def graph(self) -> IntegerGraph:
        return IntegerGraph(tuple(self.inputs), tuple(self.outputs), tuple(self.nodes), self.values, self.tensors)

    def pick(self, low: int, high: int) -> int:
        return int(self.draws.integers(low, high + 1))

    def value(self, name: str, shape: tuple[int, ...], zero_point: int | None = None) -> IntegerValue:
        zero = self.pick(-128, 127) if zero_point is None else zero_point
        self.values[name] = IntegerValue(name, shape, 0.1, zero)
        return self.values[name]

    def given(self, shape: tuple[int, ...], zero_point: int | None = None) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(name)
        self.value(name, shape, zero_point)
        return name

    def node(
        self, operator: str, inputs: tuple[str, ...], shape: tuple[int, ...], attributes=None, tensors=None
    ) -> str:
        name = f"n{len(self.nodes)}"
        keys = {role: f"{name}.{role}" for role in tensors or {}}
        self.tensors |= {keys[role]: tensor for role, tensor in (tensors or {}).items()}
        same_zero = operator in ("concat", "reshape", "shortcut", "max_pool2d")
        self.value(f"{name}.y", shape, self.values[inputs[0]].zero_point if same_zero else None)
        self.nodes.append(IntegerNode(name, operator, inputs, f"{name}.y", attributes or {}, keys))
        self.outputs.append(f"{name}.y")
        return f"{name}.y"

    def limits(self) -> dict[str, int]:
        low = self.pick(-128, 0)
        return {"low": low, "high": self.pick(low, 127)} if self.pick(0, 3) == 0 else {"low": -128, "high": 127}

    def scale(self, largest_sum: int) -> dict[str, int]:
        """Return a multiplier and a shift that bring sums of this size near the range of int8."""
        multiplier = self.pick(2**30, 2**31 - 1) >> self.pick(0, 3)
        shift = int(np.log2(largest_sum * multiplier / 256)) - self.pick(0, 3)
        return {"multiplier": multiplier, "shift": min(max(shift, 1), 62)}

    def channels(self, outputs: int, terms: int) -> dict[str, np.ndarray]:
        scales = [self.scale(terms * 3000) for _ in range(outputs)]
        return {
            "bias": self.draws.integers(-(2**14), 2**14, outputs).astype(np.int32),
            "multiplier": np.array([s["multiplier"] for s in scales], np.int32),
            "shift": np.array([s["shift"] for s in scales], np.uint8),
        }

    def weight(self, *shape: int) -> np.ndarray:
        extreme = self.pick(0, 4) == 0
        return (self.draws.choice([-127, 127], shape) if extreme else self.draws.integers(-127, 128, shape)).astype(
            np.int8
        )

    def image(self, channels: int | None = None) -> tuple[int, int, int]:
        return self.pick(1, 9), self.pick(1, 9), channels or self.pick(1, self.largest)

    def window(self, shape: tuple[int, int, int], kernel: tuple[int, int], dilation: tuple[int, int], pads: int):
        """Return (stride, padding, output size) of a window that fits the image."""
        stride = self.pick(1, 3), self.pick(1, 3)
        padding = [self.pick(0, pads) for _ in range(4)]
        sizes = []
        for axis in (0, 1):
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            padding[axis + 2] += max(0, reach - shape[axis] - padding[axis] - padding[axis + 2])
            sizes.append((shape[axis] + padding[axis] + padding[axis + 2] - reach) // stride[axis] + 1)
        return stride, tuple(padding), tuple(sizes)

    def add(self, operator: str) -> str:
        """Add one random node of `operator`."""
        return getattr(self, f"_{operator}")()

    def _conv2d(self) -> str:
        groups = self.pick(1, 3) if self.pick(0, 2) == 0 else 1
        width, per = self.pick(1, self.largest), self.pick(1, 18)
        shape = self.image(width * groups)
        kernel = (1, 1) if self.pick(0, 1) else (self.pick(1, 4), self.pick(1, 4))
        dilation = self.pick(1, 2), self.pick(1, 2)
        stride, padding, size = self.window(shape, kernel, dilation, 0 if kernel == (1, 1) and self.pick(0, 1) else 2)
        weight = self.weight(per * groups, *kernel, width)
        attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, **self.limits()}
        tensors = {"weight": weight, **self.channels(per * groups, weight[0].size)}
        return self.node("conv2d", (self.given(shape),), (*size, per * groups), attributes, tensors)

    def _depthwise(self) -> str:
        shape, kernel = self.image(), (self.pick(1, 4), self.pick(1, 4))
        dilation = self.pick(1, 2), self.pick(1, 2)
        stride, padding, size = self.window(shape, kernel, dilation, 2)
        attributes = {"stride": stride, "padding": padding, "dilation": dilation, **self.limits()}
        tensors = {"weight": self.weight(*kernel, shape[2]), **self.channels(shape[2], kernel[0] * kernel[1])}
        return self.node("depthwise", (self.given(shape),), (*size, shape[2]), attributes, tensors)

    def _linear(self) -> str:
        shape = self.image() if self.pick(0, 1) else (self.pick(1, 200),)
        outputs, features = self.pick(1, 19), int(np.prod(shape))
        tensors = {"weight": self.weight(outputs, features), **self.channels(outputs, features)}
        return self.node("linear", (self.given(shape),), (outputs,), self.limits(), tensors)

    def _add(self) -> str:
        shape = self.image()
        limit = 2**21 - 1
        attributes = {
            "multiplier_a": self.pick(-limit, limit),
            "multiplier_b": self.pick(-limit, limit),
            "shift": self.pick(15, 30),
            **self.limits(),
        }
        return self.node("add", (self.given(shape), self.given(shape)), shape, attributes)

    def _mul(self) -> str:
        shape = self.image()
        other = shape if self.pick(0, 1) else (1, 1, shape[2])
        attributes = {**self.scale(255 * 255), **self.limits()}
        return self.node("mul", (self.given(shape), self.given(other)), shape, attributes)

    def _pool(self, operator: str, attributes) -> str:
        shape, kernel = self.image(), (self.pick(1, 4), self.pick(1, 4))
        stride, padding, size = self.window(shape, kernel, (1, 1), 0)
        attributes = {"kernel": kernel, "stride": stride, "padding": padding, **attributes}
        return self.node(operator, (self.given(shape),), (*size, shape[2]), attributes)

    def _max_pool2d(self) -> str:
        return self._pool("max_pool2d", {})

    def _avg_pool2d(self) -> str:
        return self._pool("avg_pool2d", {**self.scale(9 * 128), **self.limits()})

    def _global_avg_pool(self) -> str:
        shape = self.image()
        attributes = {**self.scale(shape[0] * shape[1] * 128), **self.limits()}
        return self.node("global_avg_pool", (self.given(shape),), (shape[2],), attributes)

    def _lookup(self) -> str:
        shape = self.image()
        table = self.draws.integers(-128, 128, 256).astype(np.int8)
        return self.node("lookup", (self.given(shape),), shape, {}, {"table": table})

    def _concat(self) -> str:
        height, width, _ = self.image()
        widths = [self.pick(1, self.largest) for _ in range(self.pick(1, 4))]
        names = tuple(self.given((height, width, c), 3) for c in widths)
        return self.node("concat", names, (height, width, sum(widths)))

    def _shortcut(self) -> str:
        height, width, channels = self.image()
        stride, before, after = (self.pick(1, 3), self.pick(1, 3)), self.pick(0, 20), self.pick(0, 20)
        shape = (-(-height // stride[0]), -(-width // stride[1]), before + channels + after)
        attributes = {"stride": stride, "before": before, "after": after}
        return self.node("shortcut", (self.given((height, width, channels)),), shape, attributes)

    def _reshape(self) -> str:
        height, width, channels = self.image()
        flat = (height * width * channels,)
        return self.node("reshape", (self.given((height, width, channels)),), flat, {"shape": flat})

    def _argmax(self) -> str:
        return self.node("argmax", (self.given((self.pick(1, 300),)),), (4,))


def zoo(seed: int, operators=OPERATORS, rounds: int = 1, largest: int = 40) -> IntegerGraph:
    """Return a graph with `rounds` random nodes of every operator."""
    collected = Zoo(seed, largest)
    for _ in range(rounds):
        for operator in operators:
            collected.add(operator)
    return collected.graph()


def records(graph: IntegerGraph, n: int, seed: int) -> dict[str, np.ndarray]:
    """Return random int8 records for every input, among them the extremes."""
    draws = np.random.default_rng(seed)
    made = {k: draws.integers(-128, 128, (n, *graph.values[k].shape)).astype(np.int8) for k in graph.inputs}
    for array in made.values():
        if n > 1:
            array[0], array[1] = -128, 127
    return made
