"""Lower a network to ONNX: float layers as they are, quantised layers with int8 or int4 weights in the file."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeward.backends.cleartext.onnx_draft import OnnxDraft
from edgeward.backends.cleartext.onnx_products import refusals
from edgeward.backends.cleartext.onnx_rules import ONNX_RULES
from edgeward.core.errors import ModelError
from edgeward.graph.network import Network

OPSET, IR_VERSION = 21, 10


def reasons_against(network: Network) -> list[str]:
    """Return every reason why `network` has no ONNX form here, or an empty list."""
    reasons = [] if len(network.inputs) == 1 else [f"{len(network.inputs)} inputs, ONNX export takes one"]
    for node in network.nodes:
        if node.operator not in ONNX_RULES:
            reasons.append(f"{node.name}: no ONNX rule for {node.operator}")
        elif node.operator.startswith("quantized_"):
            reasons += refusals(node, float(network.tensor(node, "activation_zero_point").reshape(-1)[0]))
            if not bool((network.tensor(node, "weight_scale") > 0).all()):
                reasons.append(f"{node.name}: weight scales are not all positive")
    return reasons


def to_onnx(network: Network) -> onnx.ModelProto:
    """Return the ONNX model of `network`: input "input" [n, ...], outputs "exit_0", ..., and last "logits".

    8-bit layers are in QDQ form (uint8 activations, int8 weights with a scale per channel); with `activation_bits` 32
    only the weights are stored as integers; 4-bit weights are int4; binary weights take a byte each (the packed format
    stores them in a bit). Guarantee: the same network gives the same bytes, without paths, dates or producer
    metadata; equals the reference interpreter within float rounding (measured on the operator table).

    Raises: `ModelError` with every layer that has no place, or for a model beyond protobuf's 2 GiB.
    """
    network.finite()
    reasons = reasons_against(network)
    if reasons:
        raise ModelError(
            f"the network has no ONNX form for {len(reasons)} reason{'s' if len(reasons) > 1 else ''}:\n    "
            + "\n    ".join(reasons),
            fix="use the packed format (`to_packed`), which stores 1 to 8 bits per weight",
        )
    draft = OnnxDraft(network, names={network.inputs[0]: "input"})
    for node in network.nodes:
        draft.names[node.output] = ONNX_RULES[node.operator](draft, node)
    outputs = [f"exit_{i}" for i in range(len(network.outputs) - 1)] + ["logits"]
    for value, name in zip(network.outputs, outputs, strict=True):
        if network.consumers(value) and network.producer(value) and draft.names[value].startswith("#"):
            # ONNX Runtime's fusion of padding loses a value that is read here and, through an identity, an output.
            _rename(draft, value, name)
        else:
            draft.emit("Identity", [draft.names[value]], output=name)
    graph = helper.make_graph(
        draft.nodes,
        "edgeward",
        [_information("input", network.input_shape())],
        [_information(name, network.values[value].shape) for value, name in zip(network.outputs, outputs, strict=True)],
        initializer=list(draft.initialisers.values()),
    )
    return _checked(graph)


def _rename(draft: OnnxDraft, value: str, name: str) -> None:
    before = draft.names[value]
    for node in draft.nodes:
        for places in (node.input, node.output):
            places[:] = [name if place == before else place for place in places]
    draft.names.update({v: name for v, known in draft.names.items() if known == before})


def _information(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])


def _checked(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    if model.ByteSize() >= 2**31:
        raise ModelError("the ONNX model is too large", expected="less than 2 GiB", came=f"{model.ByteSize()} bytes")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError("the ONNX model does not pass onnx.checker", came=str(error).splitlines()[0]) from error
    return model


def to_onnx_bytes(network: Network) -> bytes:
    """Return the ONNX file of `network`; the same network always gives the same bytes."""
    return bytes(to_onnx(network).SerializeToString(deterministic=True))
