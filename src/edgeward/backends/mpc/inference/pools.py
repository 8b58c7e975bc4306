"""An exact rewrite: the largest of a window is taken before a rectifier, which then has fewer values to compare."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeward.graph.network import Network
from edgeward.graph.rewrite import only_reader

_RISING = frozenset({"relu", "clip"})


def pool_first(network: Network) -> Network:
    """Swap a rectifier with the max pool that alone reads it: max(relu(u), relu(v)) = relu(max(u, v)).

    Guarantee: equal outputs, bit for bit (both pick among the same values, and rectifiers keep their order). Pools that
    do not shrink the image stay behind.
    """
    for name in [node.name for node in network.nodes if node.operator in _RISING]:
        first = network.node(name)
        second = only_reader(network, first.output)
        if second is None or second.operator != "max_pool2d":
            continue
        small = network.values[second.output]
        if math.prod(small.shape) >= math.prod(network.values[first.output].shape):
            continue
        pool = replace(second, inputs=first.inputs, output=first.output)
        rectifier = replace(first, inputs=(first.output,), output=second.output)
        swapped = {first.name: pool, second.name: rectifier}
        nodes = tuple(swapped.get(node.name, node) for node in network.nodes)
        values = {**network.values, first.output: replace(network.values[first.output], shape=small.shape)}
        network = replace(network, nodes=nodes, values=values)
    return network
