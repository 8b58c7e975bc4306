"""How much working memory a node's kernel needs beside its inputs and its output."""

from __future__ import annotations

from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.codegen.window import window_of

PIXELS = 4  # output pixels whose windows the convolution lays out side by side


def scratch_bytes(graph: IntegerGraph, node: IntegerNode) -> int:
    """Return the bytes of scratch memory that the emitted code of `node` uses; only convolutions need any."""
    if node.operator != "conv2d":
        return 0
    window = window_of(graph, node)
    if window.kernel == (1, 1) and not any(window.padding):
        return 0  # a pixel is its own row
    return PIXELS * int(graph.tensors[node.tensors["weight"]][0].size)
