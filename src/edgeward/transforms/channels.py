"""Channel groups: which output channels of a network must be removed together, found by union-find over the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from edgeward.graph.network import CONSTANT, FOLDED, Network, Node

Labels = list[int]

# Operators that treat the entries of axis 0 one by one (or never touch it).
PER_CHANNEL = (
    *("relu", "clip", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_sigmoid", "hard_swish", "identity"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
)
CONVOLUTIONS = frozenset({"conv2d", "quantized_conv2d", "binary_conv2d"})
LINEARS = frozenset({"linear", "quantized_linear", "binary_linear"})
PER_OUTPUT = ("bias", "scale", "weight_scale")


@final
@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are alike: each is one set of rows in every layer of `layers`, removable on its own.

    `channels` are labels of `ChannelPlan`; every layer in `layers` has a row for each of them.
    """

    layers: tuple[str, ...]
    channels: tuple[int, ...]


@final
@dataclass(frozen=True)
class ChannelPlan:
    """What structured pruning may remove, and which axes of which tensors each channel occupies.

    `axes` maps a tensor's key to (axis, label per position) pairs, axes counted without the model axis;
    `producers` lists the weights whose rows make a channel; `frozen` counts the channels that may not go.
    """

    groups: tuple[ChannelGroup, ...]
    axes: dict[str, tuple[tuple[int, tuple[int, ...]], ...]]
    producers: tuple[str, ...]
    frozen: int


def channel_groups(network: Network) -> ChannelPlan:
    """Find the channel groups of a network.

    Channels are tied by residual adds, products, depthwise convolutions and repeated use of one layer; concatenation
    and flattening keep them apart. Channels of inputs and outputs, and those that reach an operator across channels
    (attention, layer or group norm, grouped convolution, shuffles), are frozen.
    Cost: near-linear in the channels of the graph. Source: cf. Fang et al., DepGraph, CVPR 2023, section 3.
    """
    analysis = _Analysis(network)
    for name in network.inputs:
        analysis.fresh(name, frozen=True)
    for node in network.nodes:
        analysis.visit(node)
    for name in network.outputs:
        analysis.freeze(analysis.labels[name])
    return analysis.plan()


@dataclass
class _Analysis:
    """The state of one pass: a label per channel of every value, tied labels in a union-find forest."""

    network: Network
    parent: Labels = field(default_factory=list)
    locked: set[int] = field(default_factory=set)
    labels: dict[str, Labels] = field(default_factory=dict)
    axes: dict[str, dict[int, Labels]] = field(default_factory=dict)
    rows: dict[str, Labels] = field(default_factory=dict)
    layer: dict[str, str] = field(default_factory=dict)

    def find(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def tie(self, first: Sequence[int], second: Sequence[int]) -> None:
        for a, b in zip(first, second, strict=True):
            low, high = sorted((self.find(a), self.find(b)))
            self.parent[high] = low

    def freeze(self, labels: Sequence[int]) -> None:
        self.locked.update(labels)

    def new(self, count: int) -> Labels:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return list(range(start, start + count))

    def extent(self, value: str) -> int:
        shape = self.network.values[value].shape
        return shape[0] if shape else 1

    def fresh(self, value: str, *, frozen: bool) -> Labels:
        self.labels[value] = self.new(self.extent(value))
        if frozen:
            self.freeze(self.labels[value])
        return self.labels[value]

    def occupy(self, node: Node, role: str, axis: int, labels: Labels) -> None:
        """Record that an axis of a tensor holds these channels; a tensor used twice ties them."""
        if role in node.tensors:
            if node.tensors[role].startswith((CONSTANT, FOLDED)):
                self.freeze(labels)  # not a tensor of the module: it cannot be cut there
            held = self.axes.setdefault(node.tensors[role], {})
            if axis in held:
                self.tie(held[axis], labels)
            held.setdefault(axis, labels)

    def visit(self, node: Node) -> None:
        rule = _RULES.get(node.operator, _opaque)
        rule(self, node)

    def opaque(self, node: Node) -> None:
        """Freeze what a node reads, holds and writes."""
        for value in node.inputs:
            self.freeze(self.labels[value])
        for key in node.tensors.values():
            for labels in self.axes.get(key, {}).values():
                self.freeze(labels)
        self.fresh(node.output, frozen=True)

    def produce(self, node: Node, made: Labels) -> None:
        """Note that the rows of a node's weight make `made`."""
        self.labels[node.output] = made
        self.rows.setdefault(node.tensors["weight"], made)
        self.layer.setdefault(node.tensors["weight"], node.layer)
        for role in ("weight", *PER_OUTPUT):
            self.occupy(node, role, 0, made)

    def plan(self) -> ChannelPlan:
        locked = {self.find(label) for label in self.locked}
        makers: dict[int, list[str]] = {}
        for key, labels in self.rows.items():
            for label in labels:
                made_by = makers.setdefault(self.find(label), [])
                if key in made_by:
                    locked.add(self.find(label))  # one layer's rows tied to each other: never the same count to keep
                made_by.append(key)
        alike: dict[tuple[str, ...], list[int]] = {}
        for label, keys in sorted(makers.items()):
            if label not in locked:
                alike.setdefault(tuple(self.layer[key] for key in keys), []).append(label)
        axes = {
            key: tuple((axis, tuple(map(self.find, labels))) for axis, labels in sorted(held.items()))
            for key, held in self.axes.items()
        }
        groups = tuple(ChannelGroup(layers, tuple(channels)) for layers, channels in alike.items())
        return ChannelPlan(groups, axes, tuple(self.rows), len(locked & set(makers)))


def _opaque(analysis: _Analysis, node: Node) -> None:
    analysis.opaque(node)


def _same(analysis: _Analysis, node: Node) -> None:
    if analysis.extent(node.output) == analysis.extent(node.inputs[0]) and not node.tensors:
        analysis.labels[node.output] = analysis.labels[node.inputs[0]]
    else:
        analysis.opaque(node)


def _convolution(analysis: _Analysis, node: Node) -> None:
    read = analysis.labels[node.inputs[0]]
    rows, per_group = analysis.network.tensor(node, "weight").shape[:2]
    groups = int(node.attributes["groups"])
    if groups == 1:
        analysis.occupy(node, "weight", 1, read)
        analysis.produce(node, analysis.new(rows))
    elif per_group == 1 and rows == len(read):
        analysis.produce(node, read)
    else:
        analysis.freeze(read)
        made = analysis.new(rows)
        analysis.freeze(made)
        analysis.produce(node, made)


def _linear(analysis: _Analysis, node: Node) -> None:
    read = analysis.labels[node.inputs[0]]
    if len(analysis.network.values[node.inputs[0]].shape) == 1:
        analysis.occupy(node, "weight", 1, read)
        analysis.produce(node, analysis.new(analysis.extent(node.output)))
    else:
        # acts on the last axis of [T, D]: axis 0 is carried over, the features of this layer stay
        analysis.opaque(node)
        made, taken = (analysis.new(extent) for extent in analysis.network.tensor(node, "weight").shape)
        analysis.freeze([*made, *taken])
        analysis.occupy(node, "weight", 1, taken)
        for role in ("weight", *PER_OUTPUT):
            analysis.occupy(node, role, 0, made)


def _batch_norm(analysis: _Analysis, node: Node) -> None:
    read = analysis.labels[node.inputs[0]]
    analysis.labels[node.output] = read
    for role in node.tensors:
        analysis.occupy(node, role, 0, read)


def _elementwise(analysis: _Analysis, node: Node) -> None:
    shapes = [analysis.network.values[value].shape for value in node.inputs]
    if node.tensors or any(len(shape) != len(shapes[0]) for shape in shapes):
        analysis.opaque(node)
        return
    full = [value for value in node.inputs if analysis.extent(value) == analysis.extent(node.output)]
    for value in node.inputs:
        if value in full:
            analysis.tie(analysis.labels[full[0]], analysis.labels[value])
        else:
            analysis.freeze(analysis.labels[value])
    analysis.labels[node.output] = analysis.labels[full[0]]


def _concat(analysis: _Analysis, node: Node) -> None:
    if node.attributes["axis"] == 0:
        analysis.labels[node.output] = [label for value in node.inputs for label in analysis.labels[value]]
        return
    for value in node.inputs[1:]:
        analysis.tie(analysis.labels[node.inputs[0]], analysis.labels[value])
    analysis.labels[node.output] = analysis.labels[node.inputs[0]]


def _reshape(analysis: _Analysis, node: Node) -> None:
    before, after = (analysis.network.values[value].shape for value in (node.inputs[0], node.output))
    read = analysis.labels[node.inputs[0]]
    if before and after and before[0] == after[0]:
        analysis.labels[node.output] = read
    elif before and len(after) == 1:
        analysis.labels[node.output] = [label for label in read for _ in range(math.prod(before[1:]))]
    else:
        analysis.opaque(node)


def _keeping_axis_zero(touches: Callable[[Any], bool]) -> Callable[[_Analysis, Node], None]:
    """Return a rule that carries channels over unless the node's attributes touch axis 0."""

    def rule(analysis: _Analysis, node: Node) -> None:
        (_opaque if touches(node.attributes) else _same)(analysis, node)

    return rule


_RULES: dict[str, Callable[[_Analysis, Node], None]] = {
    **dict.fromkeys(PER_CHANNEL, _same),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(LINEARS, _linear),
    **dict.fromkeys(("add", "sub", "mul", "div"), _elementwise),
    "batch_norm": _batch_norm,
    "concat": _concat,
    "reshape": _reshape,
    "mean": _keeping_axis_zero(lambda a: 0 in tuple(a["axes"])),
    "softmax": _keeping_axis_zero(lambda a: a["axis"] == 0),
    "select": _keeping_axis_zero(lambda a: a["axis"] == 0),
    "slice": _keeping_axis_zero(lambda a: a["axis"] == 0),
    "permute": _keeping_axis_zero(lambda a: a["axes"][0] != 0),
    "pad": _keeping_axis_zero(lambda a: tuple(a["padding"][0]) != (0, 0)),
}
