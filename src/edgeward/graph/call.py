"""`Call`: one node of an exported program as the mapping rules see it, and where they write what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx

from edgeward.graph.network import CONSTANT, FOLDED, Node, Value


@final
class NoPlace(Exception):
    """A call has no place in the graph; `fix` says what the author of the network can do."""

    def __init__(self, fix: str) -> None:
        """Keep the advice."""
        super().__init__(fix)
        self.fix = fix


BATCH_FIRST = "keep the batch as the first axis and let no operator mix or move it"


@final
@dataclass(frozen=True)
class Stored:
    """A tensor that does not depend on the input: its key among `Network.tensors`, and its content."""

    key: str
    tensor: Tensor


@final
@dataclass
class Draft:
    """The graph under construction: fx nodes seen so far as values, tuples of values, or stored tensors."""

    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[fx.Node, str | list[str]] = field(default_factory=dict)
    stored: dict[fx.Node, Stored] = field(default_factory=dict)
    stored_parts: dict[fx.Node, list[Stored]] = field(default_factory=dict)
    moved: dict[fx.Node, int] = field(default_factory=dict)

    def batch_axis(self, node: fx.Node) -> int:
        """Return where the traced tensor of `node` has its batch; its value always has the batch in front."""
        return self.moved.get(node, 0)

    def fresh(self, layer: str, operator: str) -> str:
        """Return a name no value has yet, made of the layer and the operator."""
        base = f"{layer}.{operator}" if layer else operator
        name, number = base, 1
        while name in self.values:
            number += 1
            name = f"{base}_{number}"
        return name


@final
@dataclass(frozen=True)
class Call:
    """One application of an ATen or custom operator, with its arguments by name."""

    draft: Draft
    node: fx.Node
    layer: str
    arguments: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a plain argument."""
        value = self.arguments.get(name)
        return default if value is None else value

    def is_stored(self, name: str) -> bool:
        """Return whether an argument is a tensor that does not depend on the input."""
        return self.arguments.get(name) in self.draft.stored

    def stored(self, name: str) -> Stored:
        """Return a stored tensor argument."""
        argument = self.arguments[name]
        if argument not in self.draft.stored:
            raise NoPlace(f"make '{name}' a parameter or buffer, it depends on the input here")
        return self.draft.stored[argument]

    def value(self, name: str) -> str:
        """Return the name of a computed value argument; a stored one becomes a `constant` node."""
        return self.value_of(self.arguments[name])

    def value_of(self, argument: Any) -> str:
        """Return the name of the value an fx node stands for."""
        if argument in self.draft.stored:
            return self._constant(self.draft.stored[argument])
        if self.draft.batch_axis(argument) != 0:
            raise NoPlace(BATCH_FIRST)
        return self.named(argument)

    def image(self, name: str) -> str:
        """Return the name of a value argument of shape [C, H, W]."""
        value = self.value(name)
        if len(self.shape(value)) != 3:
            raise NoPlace("use records [C, H, W] here")
        return value

    def named(self, argument: Any) -> str:
        """Return the name of the value an fx node stands for, wherever its traced tensor has the batch."""
        name = self.draft.names.get(argument)
        if name is None:
            raise NoPlace("compute with tensors only: no Python number may depend on the records or on their count")
        if not isinstance(name, str):
            raise NoPlace("use the parts of a split one by one")
        return name

    def _constant(self, stored: Stored) -> str:
        if stored.tensor.dim() == 0 or stored.tensor.shape[0] != 1:
            raise NoPlace("give the stored tensor a leading axis of extent 1 for the batch")
        return self.emit("constant", (), tensors={"value": stored}, shape=tuple(stored.tensor.shape[1:]))

    def shape(self, value: str) -> tuple[int, ...]:
        """Return a value's shape per record."""
        return self.draft.values[value].shape

    def result_shape(self) -> tuple[int, ...]:
        """Return the shape per record of this call's result."""
        result = self.node.meta["val"]
        first = result[0] if isinstance(result, tuple | list) else result
        if first.dtype != torch.float32:
            raise NoPlace("keep activations in float32")
        return record_shape(first, self.draft.batch_axis(self.node))

    def axis(self, name: str, rank: int) -> int:
        """Return an axis argument, counted without the batch; `rank` is that of the batched tensor."""
        return self.axis_of(self.arguments[name], rank)

    def axis_of(self, axis: int, rank: int) -> int:
        """Count an axis without the batch."""
        positive = axis % rank
        if positive == 0:
            raise NoPlace(BATCH_FIRST)
        return positive - 1

    def keep(self, tensor: Tensor, role: str) -> Stored:
        """Store a neutral tensor the program implies (the weight of a normalisation without one).

        Calls of one layer share it where it has the same content; another one gets a key of its own.
        """
        known = {**{held.key: held.tensor for held in self.draft.stored.values()}, **self.draft.tensors}
        key = base = f"{CONSTANT}{self.layer or self.node.name}.{role}"
        number = 1
        while key in known and not torch.equal(known[key], tensor):
            number += 1
            key = f"{base}_{number}"
        return Stored(key, tensor)

    def derive(self, tensor: Tensor, role: str) -> Stored:
        """Store a tensor computed from the state."""
        return Stored(f"{FOLDED}{self.node.name}.{role}", tensor)

    def emit(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        tensors: Mapping[str, Stored | None] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """Append a node and return the value it writes; its shape is the call's result unless given."""
        name = self.draft.fresh(self.layer, operator)
        held = {role: kept for role, kept in (tensors or {}).items() if kept is not None}
        for kept in held.values():
            self.draft.tensors[kept.key] = kept.tensor.detach().contiguous()
        keys = {role: kept.key for role, kept in held.items()}
        extent = self.result_shape() if shape is None else shape
        self.draft.values[name] = Value(name, extent)
        self.draft.nodes.append(Node(name, self.layer, operator, tuple(inputs), name, dict(attributes or {}), keys))
        return name

    def optional(self, name: str) -> Stored | None:
        """Return a stored tensor argument, or None where it was not given."""
        return None if self.arguments.get(name) is None else self.stored(name)


Rule: TypeAlias = Callable[[Call], "str | list[str]"]


def record_shape(result: Tensor, batch_axis: int = 0) -> tuple[int, ...]:
    """Return the shape of a traced tensor without its batch axis; refuse batches mixed with other axes."""
    shape = list(result.shape)
    batch = shape.pop(batch_axis) if shape else 0
    if not isinstance(batch, torch.SymInt) or not batch.node.expr.is_symbol:
        raise NoPlace(BATCH_FIRST)
    if any(isinstance(extent, torch.SymInt) for extent in shape):
        raise NoPlace(BATCH_FIRST)
    return tuple(int(extent) for extent in shape)
