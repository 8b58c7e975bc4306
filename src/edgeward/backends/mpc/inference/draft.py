"""`Draft`: a plan in the making, and the decision where fraction bits are dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, final

import numpy as np

from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.inference.steps_nonlinear import TruncateStep
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.presets import SHAPES
from edgeward.backends.mpc.ring import Ring
from edgeward.graph.network import Network, Node

S = TypeVar("S", bound=Step)

# They keep the fraction bits of what they read; who comes after them decides whether it must be truncated.
TRANSPARENT = frozenset({"identity", "reshape", "permute", "slice", "select", "pad", "concat"})
# They take a value with any fraction bits: sums, activations, which truncate on the way, and the largest of windows.
PATIENT = frozenset({"relu", "clip", "add", "sub", "max_pool2d", "softmax"}) | frozenset(SHAPES)


@final
class Draft:
    """A plan in the making: steps so far, fraction bits of every value, and under which name a value is read now."""

    def __init__(self, network: Network, records: int, ring: Ring, layout: Layout) -> None:
        """Begin with the input, which carries the ring's fraction bits."""
        self.network, self.records, self.ring, self.layout = network, records, ring, layout
        self.steps: list[Step] = []
        self.model: dict[str, np.ndarray] = {}
        self.done: set[str] = set()
        self.fraction = {network.inputs[0]: ring.fraction}
        self._now: dict[str, str] = {}

    def label(self, node: Node) -> str:
        """Return the label of the step that comes next: its place, a colon, the node."""
        return f"{len(self.steps)}:{node.name}"

    def shape(self, value: str) -> Shape:
        """Return the shape of a value, batch first."""
        return (self.records, *self.network.values[value].shape)

    def count(self, value: str) -> int:
        """Return the elements of a batch of a value."""
        return math.prod(self.shape(value))

    def read(self, value: str) -> str:
        """Return the name under which `value` is read now."""
        return self._now.get(value, value)

    def read_plain(self, value: str, node: Node) -> str:
        """Return a name of `value` with no more than the ring's fraction bits, truncating it for all from here on."""
        name = self.read(value)
        shift = self.fraction[name] - self.ring.fraction
        if shift > 0:
            short = f"{value}:truncated"
            self._put(TruncateStep, node, "truncate", (name,), (short,), count=self.count(value), shift=shift)
            self.fraction[short], self._now[value] = self.ring.fraction, short
        return self.read(value)

    def tensor(self, node: Node, role: str) -> np.ndarray:
        """Return a tensor of the model in float64; a single number has shape [1], as ring elements have."""
        return np.atleast_1d(self.network.tensor(node, role).double().numpy())

    def spare(self, counts: np.ndarray) -> int:
        """Return how many fraction bits more a mean of `counts` elements needs for a factor as exact as a weight.

        None for powers of two; at most as many as the truncation after it can drop beside the ring's.
        """
        if all(count & (count - 1) == 0 for count in map(int, counts.reshape(-1))):
            return 0
        room = self.ring.bits - 1 - self.layout.width - self.ring.fraction
        return max(0, min(int(counts.max()).bit_length(), room))

    def emit(self, kind: type[S], node: Node, inputs: Sequence[str], fraction: int, **settings: Any) -> None:
        """Append the step of one node, whose result has `fraction` bits."""
        self.emit_all(kind, [node], inputs, fraction, **settings)

    def emit_all(
        self, kind: type[S], nodes: Sequence[Node], inputs: Sequence[str], fraction: int, **settings: Any
    ) -> None:
        """Append one step that does the work of several nodes; truncate results that someone reads in short form."""
        outputs = tuple(node.output for node in nodes)
        self._put(kind, nodes[0], nodes[0].operator, tuple(inputs), outputs, **settings)
        for node in nodes:
            self.done.add(node.name)
            self.fraction[node.output] = fraction
        for node in nodes:
            if fraction > self.ring.fraction and self._impatient(node.output):
                self.read_plain(node.output, node)

    def between(self, kind: type[S], node: Node, inputs: Sequence[str], fraction: int, **settings: Any) -> str:
        """Append a step on the way to the result of `node`; return the name of what it writes."""
        name = f"{node.output}:{len(self.steps)}"
        self._put(kind, node, node.operator, tuple(inputs), (name,), **settings)
        self.fraction[name] = fraction
        return name

    def plan(self) -> Plan:
        """Return the finished plan."""
        (source,), (result,) = self.network.inputs, self.network.outputs
        return Plan(self.ring, tuple(self.steps), source, self.read(result), self.shape(source), self.shape(result))

    def _put(
        self,
        kind: type[S],
        node: Node,
        operator: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        **settings: Any,
    ) -> None:
        layer = node.layer or node.name
        self.steps.append(kind(self.label(node), layer, operator, inputs, outputs, **settings))

    def _impatient(self, value: str) -> bool:
        """Return whether some reader of `value`, past those that only move elements, needs it truncated."""
        readers = self.network.consumers(value)
        through = (self._impatient(r.output) for r in readers if r.operator in TRANSPARENT)
        return any(r.operator not in TRANSPARENT | PATIENT for r in readers) or any(through)
