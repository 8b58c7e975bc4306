"""The weights blob: every tensor of an integer graph in one little-endian byte string."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeward.codegen.arena import aligned
from edgeward.codegen.integer import IntegerGraph
from edgeward.core.errors import ModelError


def layout(graph: IntegerGraph) -> Mapping[str, tuple[int, int]]:
    """Return (offset, bytes) of every tensor of `graph.tensors`, in its order, each 16-byte aligned."""
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for key, tensor in graph.tensors.items():
        places[key] = (end, tensor.nbytes)
        end = aligned(end + tensor.nbytes)
    return places


def blob_bytes(graph: IntegerGraph) -> int:
    """Return the length of `pack(graph)`."""
    return aligned(max((offset + size for offset, size in layout(graph).values()), default=0))


def pack(graph: IntegerGraph) -> bytes:
    """Return all tensors as bytes: weights, biases, multipliers, shifts and tables; gaps are zero."""
    packed = bytearray(blob_bytes(graph))
    for key, (offset, size) in layout(graph).items():
        tensor = graph.tensors[key]
        packed[offset : offset + size] = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()
    return bytes(packed)


def unpack(graph: IntegerGraph, packed: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a blob that `pack` made of a graph of this structure.

    Raises: `ModelError` when the length is another.
    """
    if len(packed) != blob_bytes(graph):
        raise ModelError(
            "the weights blob does not fit the integer graph",
            expected=f"{blob_bytes(graph)} bytes",
            came=f"{len(packed)} bytes",
            fix="pack the blob again from the graph it belongs to",
        )
    return {key: _read(packed, offset, graph.tensors[key]) for key, (offset, _) in layout(graph).items()}


def _read(packed: bytes, offset: int, like: np.ndarray) -> np.ndarray:
    raw = np.frombuffer(packed, like.dtype.newbyteorder("<"), count=like.size, offset=offset)
    return raw.reshape(like.shape).astype(like.dtype)
