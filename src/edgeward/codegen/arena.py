"""`plan`: where every value of an integer graph lives while it runs, in one block of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.codegen.scratch import scratch_bytes

ALIGNMENT = 16
Need: TypeAlias = Callable[[IntegerGraph, IntegerNode], int]
# places of the buffers, bytes in total, place of the scratch area
Candidate: TypeAlias = tuple[dict[str, int], int, int]


@final
@dataclass(frozen=True)
class Lifetime:
    """A buffer: its bytes, and the first and last step (inclusive) during which it may not be overwritten."""

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Return whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@final
@dataclass(frozen=True)
class ArenaPlan:
    """One block of `bytes`, 16-byte aligned: the offset of every value, and of the scratch area that nodes share.

    Graph inputs, and reshapes of them, have no offset: they stay where the caller put them. A reshape has the offset of
    what it reshapes. `scratch_bytes` is the largest need of a node; the area holds values during other nodes.
    """

    bytes: int
    offsets: Mapping[str, int]
    scratch_offset: int
    scratch_bytes: int
    lower_bound: int


def plan(graph: IntegerGraph, scratch: Need = scratch_bytes) -> ArenaPlan:
    """Place all values that nodes of `graph` write so that no two that are alive together overlap.

    Args: `scratch` gives the scratch bytes of a node; the default is that of the C kernels.
    Guarantee: values alive at one step are disjoint, and disjoint from the scratch area of that step (proved by
    construction); `lower_bound` is the largest sum of bytes alive at one step, which no plan can beat.
    Cost: O(values^2). Source: greedy placement by size, the usual rule of static memory planners; three orders are
    tried, with the scratch area above the values and below them, and the smallest plan is kept.
    """
    lives, owner = lifetimes(graph)
    lives = [life for life in lives if life.name not in graph.inputs]
    orders: Sequence[Callable[[Lifetime], tuple[int, ...]]] = (
        lambda life: (-life.bytes, life.first),
        lambda life: (life.first, -life.bytes),
        lambda life: (-life.bytes * (life.last - life.first + 1), life.first),
    )
    needs = [aligned(scratch(graph, node)) for node in graph.nodes]
    found = [place(sorted(lives, key=order), needs) for order in orders for place in (_scratch_above, _scratch_below)]
    places, total, scratch_offset = min(found, key=lambda candidate: candidate[1])
    offsets = {value: places[buffer] for value, buffer in owner.items() if buffer in places}
    alive = [sum(life.bytes for life in lives if life.first <= s <= life.last) for s in range(len(needs))]
    bound = max((a + n for a, n in zip(alive, needs, strict=True)), default=0)
    return ArenaPlan(total, offsets, scratch_offset, max(needs, default=0), bound)


def aligned(count: int) -> int:
    """Round up to the alignment.

    >>> aligned(0), aligned(1), aligned(32)
    (0, 16, 32)
    """
    return -(-count // ALIGNMENT) * ALIGNMENT


def lifetimes(graph: IntegerGraph) -> tuple[list[Lifetime], dict[str, str]]:
    """Return the buffers with their lifetimes, and the buffer of every value (a reshape shares that of its input).

    Step -1 is the arrival of the inputs, step len(nodes) the reading of the outputs.
    """
    owner = {name: name for name in graph.inputs}
    first = dict.fromkeys(graph.inputs, -1)
    last = dict.fromkeys(graph.inputs, -1)
    for step, node in enumerate(graph.nodes):
        for name in node.inputs:
            last[owner[name]] = step
        owner[node.output] = owner[node.inputs[0]] if node.operator == "reshape" else node.output
        first.setdefault(owner[node.output], step)
        last[owner[node.output]] = step
    for name in graph.outputs:
        last[owner[name]] = len(graph.nodes)
    sizes = {buffer: aligned(graph.values[buffer].bytes) for buffer in first}
    return [Lifetime(b, sizes[b], first[b], last[b]) for b in first], owner


def _placed(lives: Sequence[Lifetime], floors: Mapping[str, int]) -> dict[str, int]:
    """Give each buffer, in order, the lowest gap among those alive with it, at its floor or higher."""
    places: dict[str, int] = {}
    done: list[Lifetime] = []
    for life in lives:
        taken = sorted((places[other.name], other.bytes) for other in done if other.meets(life))
        places[life.name] = _gap(taken, life.bytes, floors.get(life.name, 0))
        done.append(life)
    return places


def _gap(taken: Sequence[tuple[int, int]], size: int, offset: int) -> int:
    """Return the lowest place from `offset` on where `size` bytes do not meet the sorted (offset, bytes) of `taken`."""
    for start, length in taken:
        if offset + size <= start:
            break
        offset = max(offset, start + length)
    return offset


def _scratch_below(lives: Sequence[Lifetime], needs: Sequence[int]) -> Candidate:
    """Scratch at 0: every buffer lies above what the nodes of its lifetime need."""
    floors = {life.name: max(needs[max(life.first, 0) : life.last + 1], default=0) for life in lives}
    places = _placed(lives, floors)
    return places, max(_top(lives, places), max(needs, default=0)), 0


def _scratch_above(lives: Sequence[Lifetime], needs: Sequence[int]) -> Candidate:
    """Scratch behind the values of all nodes that need it, or in a gap that all of them leave."""
    places = _placed(lives, {})
    busy = [[(places[x.name], x.bytes) for x in lives if x.first <= s <= x.last] for s in range(len(needs))]

    def free(offset: int) -> bool:
        return all(
            offset + need <= start or start + size <= offset
            for need, taken in zip(needs, busy, strict=True)
            if need
            for start, size in taken
        )

    best = min(offset for offset in {0} | {places[x.name] + x.bytes for x in lives} if free(offset))
    return places, max(_top(lives, places), best + max(needs, default=0)), best


def _top(lives: Sequence[Lifetime], places: Mapping[str, int]) -> int:
    return max((places[life.name] + life.bytes for life in lives), default=0)
