"""`Network`: the typed layer graph of an `nn.Module`, the one form that exporters, meters and backends read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from edgeward.core.errors import ModelError
from edgeward.graph.operators import OPERATORS

# A colon keeps these apart from every path of modules and tensors.
CONSTANT = "constant:"
FOLDED = "folded:"


@final
@dataclass(frozen=True)
class Value:
    """One edge of the graph: shape *per input record* (no batch axis) and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Number of elements per input record."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@final
@dataclass(frozen=True)
class Node:
    """One operator application.

    `layer` is the qualified name of the module it came from ("features.0"), `operator` a name of `OPERATORS`,
    `inputs` the values it reads in order, `output` the value it writes, `attributes` its static settings (axes count
    without the batch axis), `tensors` maps a role ("weight", "bias", ...) to a key of `Network.tensors`.
    """

    name: str
    layer: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)


def _signature_problems(node: Node) -> list[str]:
    operator = OPERATORS.get(node.operator)
    if operator is None:
        return [f"{node.name} has the unknown operator '{node.operator}'"]
    return [f"{node.name} ({node.operator}) {v}" for v in operator.violations(node.attributes, node.tensors)]


@final
@dataclass(frozen=True)
class Network:
    """A typed layer graph: nodes in topological order, their values, and the tensors they hold.

    `tensors` has the state-dict keys of the captured module, so that `with_tensors` swaps in a sibling's weights
    (a shadow model of the same architecture) without a new capture. Two prefixes are reserved: "constant:" for tensors
    that belong to the program and not to the state (they stay in a swap), "folded:" for tensors computed from the state
    (they forbid a swap). `parameters` are the keys that training may change.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    parameters: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check operators' signatures, that every value is written once and before it is read, that tensors exist."""
        known: set[str] = set(self.inputs)
        problems: list[str] = []
        for node in self.nodes:
            problems += _signature_problems(node)
            problems += [f"{node.name} writes {node.output} a second time"] if node.output in known else []
            problems += [f"{node.name} reads {v} before it is written" for v in node.inputs if v not in known]
            problems += [f"{node.name} needs tensor {k}" for k in node.tensors.values() if k not in self.tensors]
            known.add(node.output)
        problems += [f"output {v} is never written" for v in self.outputs if v not in known]
        problems += [f"value {v} has no shape" for v in known if v not in self.values]
        if problems:
            raise ModelError("the graph is not well formed:\n  " + "\n  ".join(problems))

    def with_tensors(self, state: Mapping[str, Tensor]) -> Network:
        """Return the same graph with a sibling's state dict; keys and shapes must match."""
        folded = [k for k in self.tensors if k.startswith(FOLDED)]
        if folded:
            raise ModelError(
                f"{len(folded)} tensors were computed from another state and would stay behind",
                expected="a network whose tensors are those of the state dict",
                came=", ".join(folded[:5]),
                fix="swap the tensors before folding, or capture the other module with `graph.capture`",
            )
        own = {k: t for k, t in self.tensors.items() if not k.startswith(CONSTANT)}
        wrong = [k for k, t in own.items() if k not in state or state[k].shape != t.shape]
        if wrong:
            raise ModelError(
                f"the state does not fit the network in {len(wrong)} tensors",
                expected="the state dict of a module of the same architecture",
                came=", ".join(wrong[:5]),
                fix="capture the other module with `graph.capture`",
            )
        swapped = {k: state[k].detach().to("cpu", t.dtype).contiguous() for k, t in own.items()}
        return replace(self, tensors={**self.tensors, **swapped})

    def tensor(self, node: Node, role: str) -> Tensor:
        """Return the tensor a node holds in `role`."""
        return self.tensors[node.tensors[role]]

    def node(self, name: str) -> Node:
        """Return the node called `name`."""
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, value: str) -> tuple[Node, ...]:
        """Return the nodes that read `value`."""
        return tuple(node for node in self.nodes if value in node.inputs)

    def producer(self, value: str) -> Node | None:
        """Return the node that writes `value`, or None for a graph input."""
        return next((node for node in self.nodes if node.output == value), None)

    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the single input per record."""
        return self.values[self.inputs[0]].shape

    def finite(self) -> None:
        """Raise `ModelError` naming every tensor that holds NaN or infinity."""
        bad = [k for k, t in self.tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
        if bad:
            raise ModelError(
                f"{len(bad)} tensors hold NaN or infinity",
                expected="finite weights",
                came=", ".join(bad[:8]),
                fix="load an earlier checkpoint or lower the learning rate",
            )
