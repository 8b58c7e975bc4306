"""`Draft`: an `IntegerGraph` under construction from steps and grids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np

from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.ranges import Grid
from edgeward.codegen.step import NoIntegerForm, Step
from edgeward.core.registry import Registry
from edgeward.graph.network import Network

Assemble: TypeAlias = "Callable[[Draft, Step], None]"

ASSEMBLIES: Registry[Assemble] = Registry("operator with integer nodes")
"""Operator of a settled step -> how it enters the draft; filled by the files `assembly_*`."""


@final
@dataclass
class Draft:
    """The integer graph under construction.

    `order` tells for a flattened image which element of the network's vector lies at each place in memory; a vector
    that is not there lies in the network's order.
    """

    network: Network
    grids: Mapping[str, Grid]
    nodes: list[IntegerNode] = field(default_factory=list)
    values: dict[str, IntegerValue] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    order: dict[str, np.ndarray] = field(default_factory=dict)

    def declare(self, name: str, shape: tuple[int, ...], on: Grid) -> None:
        """Enter a value; `shape` with channels last."""
        self.values[name] = IntegerValue(name, shape, on.scale, on.zero_point)

    def write(
        self,
        step: Step,
        operator: str,
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Append the node of `step` and its result."""
        self.declare(step.output, last(self.network.values[step.output].shape), self.grids[step.output])
        self.append(step.name, operator, step.inputs, step.output, attributes, tensors)

    def append(
        self,
        name: str,
        operator: str,
        inputs: Sequence[str],
        output: str,
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Append a node whose result has been declared."""
        keys = {role: f"{name}.{role}" for role in tensors or {}}
        self.tensors |= {keys[role]: tensor for role, tensor in (tensors or {}).items()}
        self.nodes.append(IntegerNode(name, operator, tuple(inputs), output, attributes or {}, keys))

    def bounds(self, step: Step) -> dict[str, int]:
        """Return the integers that a rectifier's bounds become."""
        low, high = self.grids[step.output].nearest(np.array([step.low, step.high])).tolist()
        return {"low": low, "high": high}

    def scales(self, step: Step) -> tuple[list[float], float]:
        """Return the scales of the inputs and of the result."""
        return [self.grids[name].scale for name in step.inputs], self.grids[step.output].scale

    def keep_order(self, step: Step) -> None:
        """Carry the order of flattened images through an element-wise step."""
        orders = [self.order.get(name) for name in step.inputs]
        known = [order for order in orders if order is not None]
        if known and (len(known) != len(orders) or any((order != known[0]).any() for order in known)):
            raise NoIntegerForm("combine vectors that were flattened from images of one shape")
        self.order |= {step.output: known[0]} if known else {}

    def graph(self, outputs: Iterable[str]) -> IntegerGraph:
        """Return what was built."""
        return IntegerGraph(self.network.inputs, tuple(outputs), tuple(self.nodes), self.values, self.tensors)


def last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its channels last.

    >>> last((3, 32, 16)), last((10,))
    ((32, 16, 3), (10,))
    """
    return (*shape[1:], shape[0])
