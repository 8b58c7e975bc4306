"""`tapped`: the backbone as the normal world runs it: taps in the form they are handed over, then its own answer."""

from __future__ import annotations

from collections.abc import Sequence

from edgeward.graph.network import Network, Node, Value
from edgeward.graph.partition import Cut, subnetwork
from edgeward.transforms.mirror.plan import MonitorPlan, Tap, tap_shape


def tapped(backbone: Network, at: Sequence[Cut], plan: MonitorPlan, *, answer: bool = True) -> Network:
    """Return `backbone` with the plan's taps as its outputs, in order, and its own logits last where `answer`.

    Taps are pooled and tokens turned to [D, T, 1] here, so that less crosses and the secure part sees images only. A
    residual head hands over the logits too: they are then an output twice. What no output needs is left out, so a
    backbone without an answer ends at its last tap.
    """
    own = backbone.outputs[-1:]
    return with_taps(backbone, at, plan.taps, (own if plan.head == "residual" else ()) + (own if answer else ()))


def with_taps(backbone: Network, at: Sequence[Cut], taps: Sequence[Tap], further: tuple[str, ...] = ()) -> Network:
    """Return `backbone` with prepared taps as its outputs, and after them the values `further`."""
    nodes, values, outputs = list(backbone.nodes), dict(backbone.values), []
    for tap in taps:
        value = at[tap.cut].value
        for node in _prepare(value, at[tap.cut].shape, tap):
            if node.output not in values:
                nodes.append(node)
                values[node.output] = Value(node.output, _shape(node, values))
            value = node.output
        outputs.append(value)
    grown = Network(backbone.inputs, backbone.outputs, tuple(nodes), values, backbone.tensors, backbone.parameters)
    return subnetwork(grown, backbone.inputs, (*outputs, *further))


def _prepare(value: str, shape: tuple[int, ...], tap: Tap) -> list[Node]:
    if tap.native:
        return []
    if len(shape) == 2:
        turned, image = f"{value}.turned", f"{value}.image"
        permute = Node(turned, "", "permute", (value,), turned, {"axes": (1, 0)})
        return [permute, Node(image, "", "reshape", (turned,), image, {"shape": tap_shape(shape, tap)})]
    if tap.pool == 1:
        return []
    name, sides = f"{value}.pooled_{tap.pool}", (tap.pool, tap.pool)
    window = {"kernel": sides, "stride": sides, "padding": (0, 0), "ceil": False, "count_pad": True}
    return [Node(name, "", "avg_pool2d", (value,), name, window)]


def _shape(node: Node, values: dict[str, Value]) -> tuple[int, ...]:
    before = values[node.inputs[0]].shape
    if node.operator == "permute":
        return tuple(before[axis] for axis in node.attributes["axes"])
    if node.operator == "reshape":
        return tuple(node.attributes["shape"])
    pool = node.attributes["kernel"][0]
    return (before[0], before[1] // pool, before[2] // pool)
