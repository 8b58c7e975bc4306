"""What has an int8 form: networks whose every layer with weights rounds them to at most 8 bits, its inputs to 8."""

from __future__ import annotations

from edgeward.codegen.integer import IntegerGraph
from edgeward.codegen.quantize import quantize_calibrated, structure
from edgeward.core.errors import ModelError, UnsupportedOperators
from edgeward.graph.network import Network, Node

_INTEGER = ("quantized_conv2d", "quantized_linear")
_ADVICE = {
    "conv2d": "its weights are float: quantise it to at most 8 bits",
    "linear": "its weights are float: quantise it to at most 8 bits",
    "binary_conv2d": "its weights have one bit: no C is emitted for binary layers",
    "binary_linear": "its weights have one bit: no C is emitted for binary layers",
    "matmul": "it multiplies two activations: no C is emitted for it",
    "attention": "it multiplies activations: no C is emitted for it",
}


def reasons_against(network: Network) -> list[str]:
    """Return every reason why `network` has no int8 form, layer by layer; an empty list when it has one."""
    reasons = [] if len(network.inputs) == 1 else [f"{len(network.inputs)} inputs, the int8 form has one"]
    reasons += [f"{_name(node)}: {_ADVICE[node.operator]}" for node in network.nodes if node.operator in _ADVICE]
    rounded = [node for node in network.nodes if node.operator in _INTEGER]
    wide = [node for node in rounded if int(node.attributes["weight_bits"]) > 8]
    reasons += [f"{_name(node)}: weights of {node.attributes['weight_bits']} bits, at most 8 fit" for node in wide]
    few = [node for node in rounded if int(node.attributes["activation_bits"]) < 8]
    reasons += [f"{_name(node)}: inputs of {node.attributes['activation_bits']} bits, C rounds to 8" for node in few]
    reasons += [] if rounded else ["no layer has integer weights"]
    if reasons:
        return reasons
    try:
        structure(network)
    except UnsupportedOperators as error:
        return [f"{layer}: {operator} has no integer form: {fix}" for layer, operator, fix in error.problems]
    except ModelError as error:
        return [error.what]
    return []


def integer_graph(network: Network) -> IntegerGraph:
    """Return the integer graph of a calibrated network. Raises: `ModelError` with all reasons against it."""
    network.finite()
    reasons = reasons_against(network)
    if reasons:
        raise ModelError(
            f"the network has no int8 form for {len(reasons)} reason{'s' if len(reasons) > 1 else ''}:\n    "
            + "\n    ".join(reasons),
            fix="quantise every layer that holds weights (recipes `int8` and `qat`)",
        )
    return quantize_calibrated(network)


def _name(node: Node) -> str:
    return node.layer or node.name
