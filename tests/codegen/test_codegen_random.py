"""Random float networks through the whole path: close to float, equal to plain loops, planned without overlap."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.codegen_loops import Loops
from codegen.test_codegen_arena import check
from edgeward.codegen.arena import plan
from edgeward.codegen.quantize import from_int8, quantize, to_int8
from edgeward.codegen.reference import run
from edgeward.codegen.scratch import scratch_bytes
from edgeward.graph import Network, Node, Value, to_module

LARGEST = 12


class Growth:
    """A network under construction; every choice comes from one generator."""

    def __init__(self, seed: int) -> None:
        self.draws = np.random.default_rng(seed)
        self.nodes, self.tensors = [], {}
        self.shapes = {"input": (int(self.draws.integers(1, 5)), 7, 6)}
        self.images = ["input"]

    def pick(self, *options):
        return options[int(self.draws.integers(len(options)))]

    def image(self) -> str:
        return self.images[-1] if self.draws.random() < 0.7 else self.images[int(self.draws.integers(len(self.images)))]

    def emit(self, operator, inputs, shape, attributes=None, **tensors) -> str:
        name = f"{operator}_{len(self.nodes)}"
        keys = {role: f"{name}.{role}" for role in tensors}
        self.tensors |= {keys[role]: torch.from_numpy(t.astype(np.float32)) for role, t in tensors.items()}
        self.nodes.append(Node(name, name, operator, tuple(inputs), name, attributes or {}, keys))
        self.shapes[name] = tuple(int(e) for e in shape)
        if len(shape) == 3:
            self.images.append(name)
        return name

    def weight(self, *shape):
        return self.draws.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    def conv2d(self) -> None:
        x = self.image()
        c, h, w = self.shapes[x]
        groups = self.pick(1, 1, c)
        o = c if groups == c else self.pick(2, 3, 5)
        k, s, p = self.pick(1, 2, 3), self.pick(1, 1, 2), self.pick(0, 1)
        size = ((h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1)
        if min(size) < 1:
            return
        settings = {"stride": (s, s), "padding": (p, p), "dilation": (1, 1), "groups": groups}
        weight, bias = self.weight(o, c // groups, k, k), self.draws.normal(size=o) * 0.2
        self.emit("conv2d", [x], (o, *size), settings, weight=weight, bias=bias)

    def batch_norm(self) -> None:
        x = self.image()
        c = self.shapes[x][0]
        statistics = {"mean": self.draws.normal(size=c) * 0.2, "variance": self.draws.uniform(0.5, 1.5, c)}
        scale = {"weight": self.draws.uniform(0.5, 1.5, c), "bias": self.draws.normal(size=c) * 0.2}
        self.emit("batch_norm", [x], self.shapes[x], {"epsilon": 1e-5}, **scale, **statistics)

    def activation(self) -> None:
        x = self.image()
        name = self.pick("relu", "relu", "clip", "tanh", "hard_swish")
        self.emit(name, [x], self.shapes[x], {"low": -0.5, "high": 1.5} if name == "clip" else {})

    def pair(self) -> None:
        x = self.image()
        others = [v for v in self.images if self.shapes[v] == self.shapes[x]]
        self.emit(self.pick("add", "sub", "mul"), [x, self.pick(*others)], self.shapes[x])

    def concat(self) -> None:
        x = self.image()
        others = [v for v in self.images if self.shapes[v][1:] == self.shapes[x][1:]]
        y = self.pick(*others)
        channels = self.shapes[x][0] + self.shapes[y][0]
        if channels <= LARGEST:
            self.emit("concat", [x, y], (channels, *self.shapes[x][1:]), {"axis": 0})

    def pool(self) -> None:
        x = self.image()
        c, h, w = self.shapes[x]
        if min(h, w) < 3:
            return
        settings = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil": False}
        operator = self.pick("max_pool2d", "avg_pool2d")
        settings |= {"dilation": (1, 1)} if operator == "max_pool2d" else {"count_pad": True}
        self.emit(operator, [x], (c, (h - 1) // 2 + 1, (w - 1) // 2 + 1), settings)

    def pad(self) -> None:
        x = self.image()
        c, h, w = self.shapes[x]
        extents = self.pick(((0, 0), (0, 1), (1, 0)), ((1, 2), (0, 0), (0, 0)))
        (a, b), (t, u), (s, r) = extents
        if c + a + b <= LARGEST and h < 10:
            self.emit("pad", [x], (c + a + b, h + t + u, w + s + r), {"padding": extents, "value": 0.0})

    def every_second(self) -> None:
        x, axis = self.image(), self.pick(1, 2)
        shape = list(self.shapes[x])
        settings = {"axis": axis, "start": 0, "stop": shape[axis], "step": 2}
        shape[axis] = -(-shape[axis] // 2)
        self.emit("slice", [x], shape, settings)

    def network(self, steps: int) -> Network:
        kinds = (self.conv2d, self.conv2d, self.activation, self.activation, self.batch_norm, self.pair)
        for _ in range(steps):
            self.pick(*kinds, self.concat, self.pool, self.pad, self.every_second)()
        x = self.images[-1]
        flat = self.emit("reshape", [x], (np.prod(self.shapes[x]),), {"shape": (int(np.prod(self.shapes[x])),)})
        head = {"weight": self.weight(4, self.shapes[flat][0]), "bias": self.draws.normal(size=4)}
        outputs = (self.emit("linear", [flat], (4,), **head), self.pick(*self.images[1:], x))
        outputs = outputs if outputs[1] != "input" else outputs[:1]
        values = {name: Value(name, shape) for name, shape in self.shapes.items()}
        return Network(("input",), outputs, tuple(self.nodes), values, self.tensors)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 10))
def test_random_networks(seed, steps):
    network = Growth(seed).network(steps)
    x = np.random.default_rng(seed).normal(size=(24, *network.input_shape())).astype(np.float32)
    with torch.no_grad():
        found = to_module(network)(torch.from_numpy(x))
    graph = quantize(network, {"input": x})
    inputs = {"input": to_int8(graph.values["input"], x)}
    came = run(graph, inputs)
    for name, right in zip(graph.outputs, found if isinstance(found, tuple) else (found,), strict=True):
        value = graph.values[name]
        # Eight bits at every step, each a fraction of that value's range.
        tolerance = 0.04 * float(right.std()) + 2 * value.scale
        assert np.abs(from_int8(value, came[name]) - right.numpy()).mean() < tolerance
    slow = Loops(graph).run({name: q[0] for name, q in inputs.items()})
    for name in graph.outputs:
        np.testing.assert_array_equal(came[name][0], slow[name])
    check(graph, plan(graph), scratch_bytes)
