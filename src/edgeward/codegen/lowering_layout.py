"""Steps of shapes, parts and padding."""

from __future__ import annotations

from edgeward.codegen.step import LOWERINGS, NoIntegerForm, Step, shape_of, step
from edgeward.graph.network import Network, Node


@LOWERINGS.register("identity")
def identity(network: Network, node: Node) -> Step:
    """The value itself under another name."""
    return step(node, "reshape")


@LOWERINGS.register("reshape")
def reshape(network: Network, node: Node) -> Step:
    """Flattening, or a change of shape that moves no element when channels come last."""
    before, after = network.values[node.inputs[0]].shape, shape_of(network, node)
    if before == after or len(after) == 1 or (len(before) == 1 and after[1:] == (1, 1)):
        return step(node, "reshape")
    raise NoIntegerForm("reshape images to vectors only")


@LOWERINGS.register("concat")
def concat(network: Network, node: Node) -> Step:
    """Channels, or vectors, one after the other."""
    if node.attributes["axis"] != 0:
        raise NoIntegerForm("concatenate along the channels")
    return step(node, "concat")


@LOWERINGS.register("slice")
def regular_slice(network: Network, node: Node) -> Step:
    """Every k-th row or column from the first on."""
    axis, a = node.attributes["axis"], node.attributes
    shape = network.values[node.inputs[0]].shape
    # The last kept index decides, not where the range ends.
    whole = a["start"] == 0 and -(-shape[axis] // a["step"]) == len(range(0, a["stop"], a["step"]))
    if len(shape) != 3 or axis == 0 or not whole:
        raise NoIntegerForm("take every k-th row and column of the whole image")
    stride = (a["step"], 1) if axis == 1 else (1, a["step"])
    return step(node, "shortcut", {"stride": stride, "before": 0, "after": 0})


@LOWERINGS.register("pad")
def pad(network: Network, node: Node) -> Step:
    """Zeros around the image, or channels of zeros before and after the others."""
    padding, shape = node.attributes["padding"], shape_of(network, node)
    if node.attributes["value"] != 0 or len(shape) != 3:
        raise NoIntegerForm("pad images, with zeros")
    channels, rows, columns = (tuple(int(extent) for extent in pair) for pair in padding)
    if any(channels) and (any(rows) or any(columns)):
        raise NoIntegerForm("pad channels and pixels in two steps")
    if any(channels):
        return step(node, "shortcut", {"stride": (1, 1), "before": channels[0], "after": channels[1]})
    return step(node, "pad", {"padding": (rows[0], columns[0], rows[1], columns[1])})
