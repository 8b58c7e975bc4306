"""`stages`, `blocks` and `subnetwork`: where a network can be divided at a single value, and what lies between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from edgeward.core.errors import ModelError
from edgeward.graph.network import FOLDED, Network, Node, Value

_WEIGHTED = frozenset({"conv2d", "linear", "attention", "matmul"})
_WEIGHTED_FORMS = _WEIGHTED | {f"{kind}_{layer}" for kind in ("quantized", "binary") for layer in ("conv2d", "linear")}
_EXPANSION = 2.0
"""A pointwise layer that multiplies the channels by more opens an inverted residual, which is cut before it."""


@final
@dataclass(frozen=True)
class Cut:
    """A value through which everything later depends on everything earlier.

    `index` counts the cuts of one division from 0 (the network's input); `after` is how many nodes come before it.
    """

    index: int
    value: str
    shape: tuple[int, ...]
    layer: str
    after: int


def cuts(network: Network) -> tuple[Cut, ...]:
    """Return every value that alone crosses from the nodes before it to those after it, in order.

    The input is the first; constants travel with their readers, outputs already given cross nothing. The network's last
    output is none.
    Guarantee: exact; a value is returned where and only where every path from the input to the nodes after it passes.
    Cost: linear in the nodes.
    """
    (source,) = network.inputs
    last = {value: step for step, node in enumerate(network.nodes) for value in node.inputs}
    constants = {node.output for node in network.nodes if node.operator == "constant"}
    found = [Cut(0, source, network.values[source].shape, "", 0)]
    alive = {source}
    for step, node in enumerate(network.nodes):
        alive.add(node.output)
        alive = {v for v in alive - constants if last.get(v, -1) > step}
        if alive == {node.output}:
            shape = network.values[node.output].shape
            found.append(Cut(len(found), node.output, shape, node.layer, step + 1))
    return tuple(found)


def stages(network: Network) -> tuple[Cut, ...]:
    """Return the cuts between the stages of a network: cut 0 is the input, cut k the result of stage k.

    A stage ends where the next one lowers the resolution (a pooling without weights belongs to the stage before):
    stages of residual networks, blocks of VGG, groups of inverted residuals (cut at their narrow end). Where nothing
    changes it (tokens, vectors, images of one size) a stage is what one unit of the module tree computes: an
    encoder block, a hidden layer. What follows the last cut is the head. Several inputs are refused.
    """
    if len(network.inputs) != 1:
        raise ModelError(
            "only networks of one input are divided into stages",
            expected="one input",
            came=", ".join(network.inputs),
            fix="divide each branch on its own",
        )
    every = cuts(network)
    padded = {node.output for node in network.nodes if node.operator == "pad"}
    images = [c for c in every if len(c.shape) == 3 and c.value not in padded and (c.index == 0 or _extent(c) > 1)]
    flat = [cut for cut in every if cut.after > (images[-1].after if images else 0)]
    steps = _resolution_steps(network, images)
    tokens = any(len(cut.shape) == 2 for cut in flat)
    # One resolution: its units are the stages, unless it only feeds tokens (the patches of a transformer).
    steps = steps if len(steps) > 1 else [] if tokens else _unit_steps(network, images)
    chosen = [every[0], *steps, *_layer_steps(network, images[-1] if images else None, flat)]
    kept = [cut for cut in dict.fromkeys(chosen) if not cut.index or _weighted(network, 0, cut.after)]
    return tuple(replace(cut, index=index) for index, cut in enumerate(kept))


def blocks(network: Network) -> tuple[Cut, ...]:
    """Return the cuts between the blocks of a network: cut 0 is the input, cut k the result of block k.

    A block is what one unit of the module tree computes with parameters of its own (the stem, a residual block, a
    depthwise-separable pair), each stage ends with one. A rectifier at its end opens the next block, so that values of
    both signs cross: whoever has to make another network's values from them loses less. What follows the last cut is
    the head.
    """
    coarse = stages(network)
    images = [c for c in cuts(network) if len(c.shape) == 3 and _extent(c) > 1 and c.after <= coarse[-1].after]
    padded = {node.output for node in network.nodes if node.operator == "pad"}
    fine = _unit_steps(network, [cuts(network)[0], *(c for c in images if c.index and c.value not in padded)])
    kept = [coarse[0]]
    for cut in sorted({c.value: c for c in (*fine, *coarse[1:])}.values(), key=lambda c: c.after):
        if _learned(network, kept[-1].after, cut.after):
            kept.append(cut)
        elif kept[-1].value not in {c.value for c in coarse}:
            kept[-1] = cut
    every = {cut.value: cut for cut in cuts(network)}
    kept = [_unrectified(network, every, cut) for cut in kept]
    return tuple(replace(cut, index=index) for index, cut in enumerate(kept))


def _unrectified(network: Network, every: Mapping[str, Cut], cut: Cut) -> Cut:
    """Return the cut before the rectifier that ends `cut`, or `cut` itself."""
    node = network.producer(cut.value)
    if node is None or node.operator not in ("relu", "clip"):
        return cut
    return every.get(node.inputs[0], cut)


def divide(network: Network, at: Sequence[Cut]) -> tuple[Network, ...]:
    """Return the networks between consecutive cuts and after the last: len(at) parts, the last one is the head.

    Each part takes one value and gives the next cut's, then the network's own outputs that are computed in it (early
    exits) in order. Composing them equals the whole.
    """
    parts = []
    for number, cut in enumerate(at):
        stop = at[number + 1].after if number + 1 < len(at) else len(network.nodes)
        inside = {node.output for node in network.nodes[cut.after : stop]}
        own = [value for value in network.outputs if value in inside]
        ends = [at[number + 1].value] if number + 1 < len(at) else []
        parts.append(subnetwork(network, (cut.value,), tuple(dict.fromkeys(ends + own))))
    return tuple(parts)


def subnetwork(network: Network, inputs: Sequence[str], outputs: Sequence[str]) -> Network:
    """Return the nodes that compute `outputs` from `inputs`, as a network whose inputs have their old names.

    An output that is itself an input, or comes twice, is written by an identity.
    Raises: `ModelError` naming the values that also depend on something before `inputs`.
    """
    unknown = [v for v in (*inputs, *outputs) if v not in network.values]
    needed, kept = set(outputs) - set(inputs), []
    for node in reversed(network.nodes):
        if node.output in needed:
            kept.append(node)
            needed |= set(node.inputs) - set(inputs)
    open_ends = sorted(needed & set(network.inputs))
    if unknown or open_ends:
        raise ModelError(
            "this part of the network cannot stand alone",
            expected=f"outputs that follow from {', '.join(inputs)}",
            came=f"unknown values {unknown}" if unknown else f"outputs that also depend on {', '.join(open_ends)}",
            fix="divide at the cuts that graph.partition.cuts returns",
        )
    kept.reverse()
    nodes, named = _written_once(kept, inputs, outputs)
    read = {*inputs, *(node.output for node in kept)}
    values = {name: value for name, value in network.values.items() if name in read}
    values |= {new: Value(new, network.values[old].shape) for new, old in named.items()}
    held = {key for node in kept for key in node.tensors.values()}
    names = iter(named)
    given: list[str] = []
    for value in outputs:
        given.append(next(names) if value in inputs or value in given else value)
    tensors = {key: network.tensors[key] for key in network.tensors if key in held}
    return Network(tuple(inputs), tuple(given), nodes, values, tensors, frozenset(network.parameters & held))


def _written_once(
    kept: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Append identities for outputs that are inputs or come twice; return the nodes and new name -> old name."""
    repeated = [v for number, v in enumerate(outputs) if v in inputs or v in outputs[:number]]
    named = {f"{value}.again_{number}": value for number, value in enumerate(repeated)}
    again = [Node(new, "", "identity", (old,), new) for new, old in named.items()]
    return (*kept, *again), named


def _extent(cut: Cut) -> int:
    return cut.shape[1] * cut.shape[2] if len(cut.shape) == 3 else 1


def _weighted(network: Network, start: int, stop: int) -> bool:
    return any(node.operator in _WEIGHTED_FORMS for node in network.nodes[start:stop])


def _learned(network: Network, start: int, stop: int) -> bool:
    """Return whether nodes from `start` to `stop` hold parameters (weights, where the network names none)."""
    held = {key for node in network.nodes[start:stop] for key in node.tensors.values()}
    named = network.parameters
    return _weighted(network, start, stop) and (not named or any(k in named or k.startswith(FOLDED) for k in held))


def _resolution_steps(network: Network, images: Sequence[Cut]) -> list[Cut]:
    """Return the last cut of each resolution."""
    chosen: list[Cut] = []
    for number, cut in enumerate(images[1:], 1):
        following = images[number + 1] if number + 1 < len(images) else None
        if following is None:
            chosen.append(cut)
        elif _extent(following) < _extent(cut):
            # A pooling without weights closes the stage; a strided layer opens the next one.
            strided = _weighted(network, cut.after, following.after)
            chosen.append(_before_expansion(network, images, number) if strided else following)
    # Two resolution changes in a row (a strided stem, then a pooling) are one step.
    ends = [c for i, c in enumerate(chosen) if i + 1 == len(chosen) or _weighted(network, c.after, chosen[i + 1].after)]
    return [c for i, c in enumerate(ends) if c.index and (i == 0 or c.after > ends[i - 1].after)]


def _unit_steps(network: Network, images: Sequence[Cut]) -> list[Cut]:
    """Return the last cut of each unit, for networks that keep one resolution: units share two names of the path."""
    ends: list[Cut] = []
    for cut in images[1:]:
        if not _weighted(network, ends[-1].after if ends else 0, cut.after):
            ends = [*ends[:-1], cut]
        elif ends and cut.layer.split(".")[:2] == ends[-1].layer.split(".")[:2] != [""]:
            ends[-1] = cut
        else:
            ends.append(cut)
    return ends


def _before_expansion(network: Network, images: Sequence[Cut], number: int) -> Cut:
    """Return the cut before a pointwise layer that widened the value right before a strided one."""
    cut = images[number]
    for earlier in reversed(images[:number]):
        if _extent(earlier) != _extent(cut) or not earlier.index:
            break
        between = [n for n in network.nodes[earlier.after : cut.after] if n.operator in _WEIGHTED_FORMS]
        if len(between) > 1:
            break
        if between and cut.shape[0] > _EXPANSION * earlier.shape[0]:
            return earlier
    return cut


def _layer_steps(network: Network, image: Cut | None, flat: Sequence[Cut]) -> list[Cut]:
    """Return the last cut of each layer of the module tree among values without resolution, the network's end left out.

    A cut counts where the next weighted layer, or the norm before it, is about to read it.
    """
    start = image.after if image else 0
    last_weighted = max((i for i, n in enumerate(network.nodes) if n.operator in _WEIGHTED_FORMS), default=0)
    ready = [c for c in flat if c.after <= last_weighted and _weighted(network, start, c.after) and _opens(network, c)]
    ends: list[Cut] = []
    for cut in ready:
        if ends and not _weighted(network, ends[-1].after, cut.after):
            continue
        if ends and cut.layer == ends[-1].layer:
            ends.pop()
        ends.append(cut)
    return ends


def _opens(network: Network, cut: Cut) -> bool:
    readers = network.consumers(cut.value)
    return any(node.operator in _WEIGHTED_FORMS or node.operator in ("layer_norm", "group_norm") for node in readers)
