"""Random int8 networks for the performance emulator: single layers to calibrate on, monitors to validate on."""

from __future__ import annotations

import numpy as np

from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue

_CLAMP = {"low": -128, "high": 127}
STAGES = ((3, 32), (16, 32), (32, 16), (64, 8))
"""Channels and side of the network input and of the three stages of a CIFAR ResNet: what a monitor may tap."""


class Draft:
    """An integer graph under construction, with random weights; every method returns the name of the new value."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Start empty."""
        self._rng = rng
        self.inputs: list[str] = []
        self.nodes: list[IntegerNode] = []
        self._tensors: dict[str, np.ndarray] = {}
        self.values: dict[str, IntegerValue] = {}

    def input(self, *shape: int) -> str:
        """Add an input of `shape` (H, W, C) or (F,)."""
        name = f"input{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = IntegerValue(name, shape, 0.05, 0)
        return name

    def conv(self, x: str, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        """Add a convolution that keeps the size (at stride 1)."""
        height, width, channels = self.values[x].shape
        pad, shape = kernel // 2, (-(-height // stride), -(-width // stride), outputs)
        window = {"stride": (stride, stride), "padding": (pad,) * 4, "dilation": (1, 1), "groups": groups}
        weight = self._weight(outputs, kernel, kernel, channels // groups)
        depth = kernel * kernel * channels // groups
        return self._layer("conv2d", x, shape, {**window, **_CLAMP}, weight, outputs, depth)

    def depthwise(self, x: str, kernel: int = 3, stride: int = 1) -> str:
        """Add a convolution with one filter per channel."""
        height, width, channels = self.values[x].shape
        pad, shape = kernel // 2, (-(-height // stride), -(-width // stride), channels)
        window = {"stride": (stride, stride), "padding": (pad,) * 4, "dilation": (1, 1)}
        weight = self._weight(kernel, kernel, channels)
        return self._layer("depthwise", x, shape, {**window, **_CLAMP}, weight, channels, kernel * kernel)

    def linear(self, x: str, outputs: int) -> str:
        """Add a fully connected layer."""
        features = self.values[x].bytes
        return self._layer("linear", x, (outputs,), dict(_CLAMP), self._weight(outputs, features), outputs, features)

    def add(self, a: str, b: str) -> str:
        """Add a sum of two values."""
        return self._node(
            "add", (a, b), self.values[a].shape, {"multiplier_a": 9, "multiplier_b": 7, "shift": 4, **_CLAMP}
        )

    def mul(self, a: str, b: str) -> str:
        """Add a product of two values, or of a value and one factor per channel."""
        attributes = {"multiplier": 1 << 30, "shift": 37, **_CLAMP}
        return self._node("mul", (a, b), self.values[a].shape, attributes)

    def shortcut(self, x: str, stride: int, before: int, after: int) -> str:
        """Add the parameter-free shortcut of a CIFAR ResNet."""
        height, width, channels = self.values[x].shape
        shape = (-(-height // stride), -(-width // stride), before + channels + after)
        return self._node("shortcut", (x,), shape, {"stride": (stride, stride), "before": before, "after": after})

    def pool(self, x: str, size: int, operator: str = "max_pool2d", stride: int = 0, padding: int = 0) -> str:
        """Add a pooling of `size` x `size` windows, side by side where no stride is given."""
        height, width, channels = self.values[x].shape
        stride = stride or size
        attributes = {"kernel": (size, size), "stride": (stride, stride), "padding": (padding,) * 4}
        if operator == "avg_pool2d":
            attributes |= {"multiplier": 1 << 30, "shift": 32, **_CLAMP}
        shape = [(extent + 2 * padding - size) // stride + 1 for extent in (height, width)]
        return self._node(operator, (x,), (*shape, channels), attributes)

    def mean(self, x: str) -> str:
        """Add the mean over height and width."""
        attributes = {"multiplier": 1 << 30, "shift": 36, **_CLAMP}
        return self._node("global_avg_pool", (x,), self.values[x].shape[2:], attributes)

    def lookup(self, x: str) -> str:
        """Add a unary function."""
        return self._node("lookup", (x,), self.values[x].shape, {}, {"table": self._weight(256)})

    def concat(self, *values: str) -> str:
        """Join along the channels."""
        shapes = [self.values[value].shape for value in values]
        return self._node("concat", values, (*shapes[0][:-1], sum(shape[-1] for shape in shapes)), {})

    def argmax(self, x: str) -> str:
        """Add the index of the largest element."""
        return self._node("argmax", (x,), (4,), {})

    def graph(self, *outputs: str) -> IntegerGraph:
        """Return the finished graph."""
        return IntegerGraph(tuple(self.inputs), outputs, tuple(self.nodes), self.values, self._tensors)

    def records(self) -> list[np.ndarray]:
        """Return one random record [1, ...] per input."""
        shapes = [(1, *self.values[name].shape) for name in self.inputs]
        return [self._rng.integers(-128, 128, shape, dtype=np.int8) for shape in shapes]

    def _weight(self, *shape: int) -> np.ndarray:
        return self._rng.integers(-127, 128, shape, dtype=np.int8)

    def _layer(self, operator, x, shape, attributes, weight, outputs, depth):
        tensors = {
            "weight": weight,
            "bias": self._rng.integers(-1000, 1000, outputs, dtype=np.int32),
            "multiplier": np.full(outputs, (1 << 30) + 12345, np.int32),
            "shift": np.full(outputs, 36 + int(np.log2(depth)) // 2, np.uint8),
        }
        return self._node(operator, (x,), shape, attributes, tensors)

    def _node(self, operator, inputs, shape, attributes, tensors=None):
        name = f"{operator}{len(self.nodes)}"
        held = {role: f"{name}.{role}" for role in tensors or {}}
        self._tensors |= {held[role]: tensor for role, tensor in (tensors or {}).items()}
        self.values[name] = IntegerValue(name, tuple(int(n) for n in shape), 0.05, 0)
        self.nodes.append(IntegerNode(name, operator, tuple(inputs), name, attributes, held))
        return name


def layers(rng: np.random.Generator, count: int) -> Draft:
    """Return about `count` unconnected single layers of all kinds and random shapes, each with its own input."""
    draft = Draft(rng)

    def size(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    widths = [3, 4, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64]
    drawn = [0]

    def width() -> int:
        # every kind of layer meets every width: the kernels have a regime for each range of them
        drawn[0] += 5
        return widths[drawn[0] % len(widths)]

    def image() -> str:
        side = size(2, 18)
        return draft.input(side, side, width())

    makers = [
        lambda: draft.conv(image(), width(), 1),
        lambda: draft.conv(image(), width(), 3, size(1, 2)),
        lambda: draft.conv(image(), width(), 1),
        lambda: draft.depthwise(image(), int(rng.choice([1, 3, 3, 5])), size(1, 2)),
        lambda: draft.linear(draft.input(size(4, 300)), size(2, 40)),
        lambda: draft.add(*[draft.input(side, side, w) for side, w in [(size(2, 18), width())] for _ in range(2)]),
        lambda: draft.pool(image(), 2),
        lambda: draft.pool(image(), 3, "max_pool2d", size(1, 2), 1),
        lambda: draft.pool(image(), 2, "avg_pool2d"),
        lambda: draft.pool(image(), 3, "avg_pool2d", size(1, 2), 1),
        lambda: draft.mean(image()),
        lambda: draft.lookup(image()),
        lambda: draft.concat(*[draft.input(s, s, w) for s in [size(2, 18)] for w in (width(), width())]),
        lambda: draft.mul(image(), draft.input(1, 1, draft.values[draft.inputs[-1]].shape[2])),
        lambda: draft.mul(*[draft.input(s, s, w) for s, w in [(size(2, 18), width())] for _ in range(2)]),
        lambda: draft.shortcut(image(), size(1, 2), size(0, 16), size(0, 16)),
        lambda: draft.conv(draft.input(*[size(2, 12)] * 2, 8 * size(1, 4)), 8 * size(1, 4), 3, 1, size(1, 2) * 2),
        lambda: draft.argmax(draft.input(size(2, 100))),
    ]
    for i in range(count):
        drawn[0] = i // len(makers)
        makers[i % len(makers)]()
    return draft


def monitor(rng: np.random.Generator, classes: int = 10) -> tuple[Draft, str]:
    """Return a random monitor over the stages of a small ResNet, and its answer.

    Every chosen stage gives a tap (pooled before the hand-over), a block of a random type and width; blocks are
    joined by down-sampling and addition, then mean, linear layer and arg-max: the form that a strategy describes.
    """
    draft = Draft(rng)
    chosen = sorted(rng.choice(len(STAGES), int(rng.integers(1, len(STAGES) + 1)), replace=False).tolist())
    before = None
    for stage in chosen:
        channels, side = STAGES[stage]
        limit = draft.values[before].shape[0] if before is not None else side
        side //= int(rng.choice([pool for pool in (1, 2, 4, 8) if side // pool <= limit][:3]))
        outputs = int(rng.choice([4, 8, 12, 16, 24, 32]))
        x = draft.conv(draft.input(side, side, channels), outputs, 1)
        if before is not None:
            x = draft.add(x, _joined(draft, before, outputs, side))
        before = _block(draft, x, str(rng.choice(["pw", "dwsep", "conv3", "ghost"])), outputs)
    return draft, draft.argmax(draft.linear(draft.mean(before), classes))


def _joined(draft: Draft, before: str, outputs: int, side: int) -> str:
    """Return the block before at the size and width of the next one."""
    height, _, channels = draft.values[before].shape
    if height > side:
        before = draft.pool(before, height // side)
    return draft.conv(before, outputs, 1) if channels != outputs else before


def _block(draft: Draft, x: str, kind: str, outputs: int) -> str:
    if kind == "dwsep":
        return draft.conv(draft.depthwise(x), outputs, 1)
    if kind == "conv3":
        return draft.conv(x, outputs, 3)
    if kind == "ghost":
        half = draft.conv(x, max(outputs // 2, 1), 1)
        return draft.concat(half, draft.depthwise(half)) if outputs > 1 else half
    return draft.conv(x, outputs, 1)
