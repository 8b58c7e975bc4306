"""Steps of pooling and means."""

from __future__ import annotations

from typing import Any

from edgeward.codegen.step import LOWERINGS, NoIntegerForm, Step, shape_of, step
from edgeward.graph.network import Network, Node


def _pool(network: Network, node: Node) -> dict[str, Any]:
    """Return kernel, stride and the padding that gives the result's size, rounded up or down as the network has it."""
    size, given = network.values[node.inputs[0]].shape[1:], shape_of(network, node)[1:]
    kernel, stride, (top, left) = (tuple(node.attributes[k]) for k in ("kernel", "stride", "padding"))
    reach = [(g - 1) * s + k for g, s, k in zip(given, stride, kernel, strict=True)]
    bottom, right = (max(r - n - p, 0) for r, n, p in zip(reach, size, (top, left), strict=True))
    return {"kernel": kernel, "stride": stride, "padding": (top, left, bottom, right)}


@LOWERINGS.register("max_pool2d")
def max_pool2d(network: Network, node: Node) -> Step:
    """Window maximum."""
    if tuple(node.attributes["dilation"]) != (1, 1):
        raise NoIntegerForm("pool without dilation")
    return step(node, "max_pool2d", _pool(network, node))


@LOWERINGS.register("avg_pool2d")
def avg_pool2d(network: Network, node: Node) -> Step:
    """Window mean in which padding counts as zeros."""
    settings = _pool(network, node)
    (top, left), (bottom, right) = node.attributes["padding"], settings["padding"][2:]
    if (top or left) and not node.attributes["count_pad"]:
        raise NoIntegerForm("average without padding, or with count_include_pad=True")
    if bottom > top or right > left:
        raise NoIntegerForm("average with ceil_mode=False")
    return step(node, "avg_pool2d", settings)


@LOWERINGS.register("adaptive_avg_pool2d")
def adaptive_avg_pool2d(network: Network, node: Node) -> Step:
    """Mean over equal windows; over everything for an output of one pixel."""
    size, result = network.values[node.inputs[0]].shape[1:], tuple(node.attributes["output"])
    if result == (1, 1):
        return step(node, "global_avg_pool")
    if any(n % r for n, r in zip(size, result, strict=True)):
        raise NoIntegerForm(f"average {size} to a size that divides it, or to (1, 1)")
    kernel = tuple(n // r for n, r in zip(size, result, strict=True))
    return step(node, "avg_pool2d", {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0)})


@LOWERINGS.register("mean")
def mean(network: Network, node: Node) -> Step:
    """Mean over height and width."""
    if len(network.values[node.inputs[0]].shape) != 3 or tuple(node.attributes["axes"]) != (1, 2):
        raise NoIntegerForm("average over height and width together")
    return step(node, "global_avg_pool")
