"""An ONNX graph under construction: names that depend on the network alone, tensors stored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from edgeward.backends.cleartext.bitpack import pack_codes
from edgeward.graph.network import Network, Node


@final
@dataclass
class OnnxDraft:
    """Nodes and initialisers so far; `names` maps the network's values to the graph's."""

    network: Network
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def emit(self, operator: str, inputs: Sequence[str], *, output: str | None = None, **attributes: Any) -> str:
        """Append a node and return the name of its only output."""
        name = output or f"#{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [name], name=f"{operator}{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return name

    def store(self, array: np.ndarray, name: str | None = None) -> str:
        """Store an array as an initialiser; an array without a name is stored under its content."""
        array = np.asarray(array, order="C")
        if name is None:
            name = f"{array.dtype}{list(array.shape)}{array.tobytes().hex()}" if array.size <= 8 else None
        name = name or f"$({len(self.initialisers)})"
        if name not in self.initialisers:
            self.initialisers[name] = numpy_helper.from_array(array, name)
        return name

    def store_int4(self, values: np.ndarray, name: str) -> str:
        """Store integers -8..7 in four bits each."""
        codes = (values.reshape(-1) & 15).astype(np.uint8)
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT4, dims=values.shape)
        tensor.raw_data = pack_codes(codes, 4).tobytes()
        self.initialisers.setdefault(name, tensor)
        return name

    def integers(self, *numbers: int) -> str:
        """Store an int64 list."""
        return self.store(np.array(numbers, np.int64))

    def number(self, value: float) -> str:
        """Store a float32 scalar."""
        return self.store(np.array(value, np.float32))

    def array(self, node: Node, role: str) -> np.ndarray:
        """Return a tensor of a node as float32."""
        return self.network.tensor(node, role).detach().to("cpu", torch.float32).contiguous().numpy()

    def tensor(self, node: Node, role: str) -> str:
        """Store a tensor of a node under its state-dict key."""
        return self.store(self.array(node, role), f"{node.tensors[role]}")

    def inputs(self, node: Node) -> list[str]:
        """Return the names of the values a node reads."""
        return [self.names[value] for value in node.inputs]

    def shape(self, value: str) -> tuple[int, ...]:
        """Return a value's shape per record."""
        return self.network.values[value].shape
