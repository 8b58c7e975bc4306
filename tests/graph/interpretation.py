"""A network run node by node, for tests that must see every value."""

from edgeward.graph.semantics import apply


def run(network, x):
    """Interpret `network`, checking every declared shape on the way."""
    values = {network.inputs[0]: x}
    for node in network.nodes:
        held = {role: network.tensors[key] for role, key in node.tensors.items()}
        shape = network.values[node.output].shape
        values[node.output] = apply(node, held, [values[v] for v in node.inputs], shape, len(x))
        assert tuple(values[node.output].shape) == (len(x), *shape), node
    return tuple(values[name] for name in network.outputs)
