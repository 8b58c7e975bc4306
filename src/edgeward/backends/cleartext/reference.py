"""`ReferenceExecutable`: a network interpreted with torch; the oracle of all backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError
from edgeward.graph.network import Network, Node
from edgeward.graph.semantics import apply


@final
class ReferenceExecutable(Executable):
    """A network run node by node with torch on the CPU.

    Guarantee: equals the captured module in eval mode within float rounding (measured on the operator table and the
    zoo, 1e-5). Cost: one pass over the nodes; a value is dropped after its last reader.
    """

    runtime: ClassVar[str] = "torch-reference"

    def __init__(self, network: Network, *, chunk: int = 512) -> None:
        """Prepare `network`, to be run on at most `chunk` records at a time; nothing is computed yet."""
        self._network, self._chunk = network, chunk
        self._last_reader = {value: node.name for node in network.nodes for value in node.inputs}

    @property
    def network(self) -> Network:
        """The network this runs."""
        return self._network

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Return the last output for float32 `records` [n, ...input shape] as float32.

        Raises: `DataError` when the shape of a record is not that of the network's input.
        """
        return self.run_all(records)[-1]

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit) for `records`."""
        expected = self._network.input_shape()
        if tuple(records.shape[1:]) != expected:
            raise DataError(
                "the records do not fit the network",
                expected=f"float32 [n, {', '.join(map(str, expected))}]",
                came=f"{records.dtype} {list(records.shape)}",
                fix="give a batch of records of the shape the network was captured with",
            )
        batch = torch.from_numpy(np.ascontiguousarray(records, dtype=np.float32))
        with torch.no_grad():
            pieces = [self._interpret(part) for part in torch.split(batch, self._chunk)]
        return tuple(torch.cat(parts).numpy() for parts in zip(*pieces, strict=True))

    def _interpret(self, records: Tensor) -> list[Tensor]:
        values = {self._network.inputs[0]: records}
        for node in self._network.nodes:
            values[node.output] = self._apply(node, values, len(records))
            for spent in set(node.inputs) - set(self._network.outputs):
                if self._last_reader[spent] == node.name:
                    del values[spent]
        return [values[name] for name in self._network.outputs]

    def _apply(self, node: Node, values: Mapping[str, Tensor], records: int) -> Tensor:
        held = {role: self._network.tensors[key] for role, key in node.tensors.items()}
        inputs = [values[name] for name in node.inputs]
        return apply(node, held, inputs, self._network.values[node.output].shape, records)
