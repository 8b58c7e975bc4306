"""What each layer of a packed file takes: bytes, weights, bits per weight with everything counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from edgeward.backends.cleartext.packed_lowering import BINARY, to_packed
from edgeward.backends.cleartext.packed_plan import read_plan
from edgeward.graph.network import Network


@final
@dataclass(frozen=True)
class LayerStorage:
    """One layer's share of a packed file.

    `weights` counts the elements of the weight tensor, `weight_bytes` what they take packed, `other_bytes` scales,
    zero points, biases, factors and offsets. A tensor that several layers use is counted at the first.
    """

    layer: str
    operator: str
    weights: int
    weight_bytes: int
    other_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, with every other tensor of the layer on top; 0 for a layer without weights."""
        return 8 * (self.weight_bytes + self.other_bytes) / self.weights if self.weights else 0.0


@final
@dataclass(frozen=True)
class StorageReport:
    """The layers of a packed file and what is left over: `graph_bytes` is the header with the graph."""

    layers: tuple[LayerStorage, ...]
    file_bytes: int

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(layer.weight_bytes + layer.other_bytes for layer in self.layers)

    @property
    def graph_bytes(self) -> int:
        """Bytes of the header: the graph, names and places of tensors."""
        return self.file_bytes - self.tensor_bytes

    @property
    def binary_bits_per_weight(self) -> float | None:
        """Bits per weight over all binary layers, stored scales and biases counted; None without such layers."""
        return _bits_per_weight([layer for layer in self.layers if layer.operator in BINARY])


def _bits_per_weight(layers: Sequence[LayerStorage]) -> float | None:
    weights = sum(layer.weights for layer in layers)
    return 8 * sum(layer.weight_bytes + layer.other_bytes for layer in layers) / weights if weights else None


def storage_report(packed: bytes | Network) -> StorageReport:
    """Return what each layer of a packed file (or of the file `to_packed` makes of a network) takes.

    Guarantee: the layers and the header add up to the size of the file, byte for byte.
    """
    artefact = packed if isinstance(packed, bytes) else to_packed(packed)
    layers, seen = [], set()
    for step in read_plan(artefact).steps:
        fresh = {}
        for role, tensor in step.tensors.items():
            if tensor.name not in seen:
                fresh[role] = tensor
                seen.add(tensor.name)
        if not step.tensors:
            continue
        weight = step.tensors.get("weight")
        weight_bytes = fresh["weight"].stored_bytes if "weight" in fresh else 0
        other_bytes = sum(tensor.stored_bytes for tensor in fresh.values()) - weight_bytes
        count = weight.array.size if weight is not None else 0
        layers.append(LayerStorage(step.layer, step.operator, count, weight_bytes, other_bytes))
    return StorageReport(tuple(layers), len(artefact))
