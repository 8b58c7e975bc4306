"""Peak activation memory of a network by buffer liveness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from edgeward.graph.network import Network, Node, Value

# The result may overwrite the input, element by element.
_ACTIVATIONS = {"relu", "clip", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_sigmoid", "hard_swish"}
_IN_PLACE = frozenset(_ACTIVATIONS | {"batch_norm", "add", "sub", "mul", "div"})
_ALIAS = frozenset({"reshape", "identity"})


@final
@dataclass(frozen=True)
class LivenessPlan:
    """The bytes alive while each node runs, in execution order, and where they peak."""

    peak_bytes: float
    at_node: str
    table: tuple[tuple[str, float], ...]


def peak_activation_bytes(network: Network, bytes_per_element: float | Callable[[Value], float] = 4) -> LivenessPlan:
    """Return the activation bytes per record alive at each node when nodes run in order.

    While a node runs, its inputs, its result and every value read later are alive. Element-wise operators overwrite an
    input of equal size that nobody else reads; reshape and identity share their input's buffer. The network's input is
    counted until its last reader and never overwritten; outputs stay to the end; constants live with the weights.

    `bytes_per_element` is a number or a function of the value (a binary activation has 1/8).
    Guarantee: a lower bound for any allocator without recomputation, tiling or fusion (modelled, not measured).
    Source: the max(input + output) rule of MCU runtimes, generalised to branches.
    """
    size = bytes_per_element if callable(bytes_per_element) else (lambda value: bytes_per_element)
    buffer = _buffers(network)
    held = _sizes(network, buffer, size)
    last = {buffer[v]: step for step, node in enumerate(network.nodes) for v in (*node.inputs, node.output)}
    last |= {buffer[v]: len(network.nodes) for v in network.outputs}
    table, alive = [], {buffer[v] for v in network.inputs}
    for step, node in enumerate(network.nodes):
        alive.add(buffer[node.output])
        table.append((node.name, float(sum(held[b] for b in alive))))
        alive = {b for b in alive if last.get(b, -1) > step}
    peak = max(table, key=lambda row: row[1], default=("", float(sum(held.values()))))
    return LivenessPlan(peak[1], peak[0], tuple(table))


def _buffers(network: Network) -> dict[str, str]:
    """Assign each value the buffer it lives in, named by the first value that was there."""
    buffer = {value: value for value in network.inputs}
    last_read = {value: step for step, node in enumerate(network.nodes) for value in node.inputs}
    last_read |= dict.fromkeys(network.outputs, len(network.nodes))
    for step, node in enumerate(network.nodes):
        reused = _reusable(network, node, step, buffer, last_read)
        buffer[node.output] = node.output if reused is None else buffer[reused]
    return buffer


def _reusable(network: Network, node: Node, step: int, buffer: dict[str, str], last_read: dict[str, int]) -> str | None:
    if node.operator in _ALIAS:
        return node.inputs[0]
    if node.operator not in _IN_PLACE:
        return None
    elements = network.values[node.output].elements
    for value in node.inputs:
        sharing = [v for v, b in buffer.items() if b == buffer[value]]
        free = all(last_read.get(v, -1) <= step for v in sharing) and buffer[value] not in network.inputs
        if free and network.values[value].elements == elements and not _constant(network, value):
            return value
    return None


def _constant(network: Network, value: str) -> bool:
    producer = network.producer(value)
    return producer is not None and producer.operator == "constant"


def _sizes(network: Network, buffer: dict[str, str], size: Callable[[Value], float]) -> dict[str, float]:
    """Return each buffer's bytes: those of the largest value that lives there."""
    held: dict[str, float] = {}
    for value, place in buffer.items():
        bytes_here = 0.0 if _constant(network, value) else network.values[value].elements * size(network.values[value])
        held[place] = max(held.get(place, 0.0), bytes_here)
    return held
