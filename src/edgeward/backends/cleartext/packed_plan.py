"""A packed file as a plan: every field checked, every tensor decoded, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from edgeward.backends.cleartext.bitpack import unpack_codes
from edgeward.backends.cleartext.container import Malformed, read_container, read_json
from edgeward.backends.cleartext.packed_lowering import BINARY, FORMAT, QUANTIZED, VERSION
from edgeward.backends.cleartext.packed_shapes import MAX_ELEMENTS, SHAPES, Site
from edgeward.core.errors import ModelError
from edgeward.graph.operators import OPERATORS

MAX_NODES = 20_000
MAX_LIVE_ELEMENTS = 1 << 28
_METADATA = {"format", "version", "graph"}


@final
@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: `array` is float32, or uint8 codes of `bits` bits."""

    name: str
    array: np.ndarray
    bits: int

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""
        return -(-self.array.size * self.bits // 8)


@final
@dataclass(frozen=True)
class Step:
    """One node: reads the values numbered `inputs`, writes a value of `shape` per record."""

    layer: str
    operator: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    work_elements: int


@final
@dataclass(frozen=True)
class Plan:
    """A whole packed network: value 0 is the input, step i writes value i + 1; the last output holds the logits."""

    input_shape: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def shape(self, value: int) -> tuple[int, ...]:
        """Return a value's shape per record."""
        return self.steps[value - 1].shape if value else self.input_shape

    def last_readers(self) -> dict[int, int]:
        """Return for each value that is not an output the last step that reads it."""
        readers = {value: number for number, step in enumerate(self.steps) for value in step.inputs}
        return {value: number for value, number in readers.items() if value not in self.outputs}


def read_plan(artefact: bytes) -> Plan:
    """Check and decode a packed file of foreign origin.

    Guarantee: a file that is accepted runs without reading outside its tensors, and with at most `MAX_LIVE_ELEMENTS`
    floats per record alive at once; the work of a node is bounded, that of a whole file only by its number of nodes.
    Raises: `ModelError`, naming what is wrong; all unknown operators in one error.
    """
    try:
        tensors, metadata = read_container(artefact)
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION or set(metadata) - _METADATA:
            raise Malformed(f"the metadata does not say format {FORMAT}, version {VERSION}")
        return _plan(read_json(metadata.get("graph", "")), tensors)
    except Malformed as error:
        raise ModelError(
            "this is not a packed network",
            expected=f"a file written by `to_packed` ({FORMAT}, version {VERSION})",
            came=str(error),
            fix="write the file again, or compare its SHA-256 with the one in the manifest",
        ) from error


_PARTS = {"layer", "operator", "inputs", "shape", "attributes", "tensors"}


def _plan(graph: Any, stored: Mapping[str, np.ndarray]) -> Plan:
    if not isinstance(graph, dict) or set(graph) != {"input", "nodes", "outputs"}:
        raise Malformed("the graph is not an object with input, nodes and outputs")
    nodes = graph["nodes"]
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES or not all(isinstance(node, dict) for node in nodes):
        raise Malformed("the nodes are not a list of objects")
    unknown = sorted({str(node.get("operator"))[:80] for node in nodes} - set(SHAPES))
    if unknown:
        raise Malformed(f"unknown operators: {', '.join(unknown[:20])}")
    shapes, steps = [_shape(graph["input"])], []
    for number, node in enumerate(nodes):
        steps.append(_step(number, node, shapes, stored))
        shapes.append(steps[-1].shape)
    outputs = graph["outputs"]
    if not isinstance(outputs, list) or not outputs or not all(_index(value, len(shapes)) for value in outputs):
        raise Malformed("the outputs are not values of the graph")
    unused = set(stored) - {tensor.name for step in steps for tensor in step.tensors.values()}
    if unused:
        raise Malformed(f"{len(unused)} tensors belong to no node")
    plan = Plan(shapes[0], tuple(steps), tuple(outputs))
    _bound_memory(plan)
    return plan


def _step(number: int, node: dict[str, Any], shapes: list[tuple[int, ...]], stored: Mapping[str, np.ndarray]) -> Step:
    where = f"node {number}"
    inputs, attributes, places = node.get("inputs", []), node.get("attributes", {}), node.get("tensors", {})
    layer, operator = node.get("layer", ""), node["operator"]
    if set(node) - _PARTS or not isinstance(layer, str) or not isinstance(attributes, dict):
        raise Malformed(f"{where} has foreign parts")
    if not isinstance(inputs, list) or not all(_index(value, len(shapes)) for value in inputs):
        raise Malformed(f"{where} reads values that are not written before it")
    if not isinstance(places, dict):
        raise Malformed(f"{where} has no table of tensors")
    tensors = {role: _tensor(where, place, stored) for role, place in places.items()}
    _check_signature(where, operator, attributes, tensors)
    held = {role: tensor.array.shape for role, tensor in tensors.items()}
    site = Site(attributes, held, [shapes[value] for value in inputs], _shape(node.get("shape", [])))
    try:
        found, work = SHAPES[operator](site)
    except Malformed as error:
        raise Malformed(f"{where} ({operator}): {error}") from error
    if found != site.claimed or max(math.prod(found), work) > MAX_ELEMENTS:
        raise Malformed(f"{where} ({operator}) gives {found}, not {site.claimed}, or is too large")
    return Step(layer, operator, tuple(inputs), found, attributes, tensors, work)


def _check_signature(where: str, operator: str, attributes: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    roles = set(tensors)
    if operator == "affine":
        problems = [] if roles == {"weight", "bias"} and not attributes else ["takes a weight and a bias"]
    else:
        unit = operator in BINARY and attributes.get("unit_scale") is True
        problems = OPERATORS[operator].violations(attributes, roles | ({"scale"} if unit else set()))
        problems += ["stores a scale that is one"] if unit and "scale" in roles else []
    rounds = attributes.get("activation_bits") != 32
    positive = [r for r in ("weight_scale", "activation_scale") if r in tensors and (r == "weight_scale" or rounds)]
    problems += [f"has a {role} that is not positive" for role in positive if not bool((tensors[role].array > 0).all())]
    for role, tensor in tensors.items():
        bits = 32
        if role == "weight" and operator in BINARY:
            bits = 1
        if role == "weight" and operator in QUANTIZED:
            bits = attributes.get("weight_bits", 0)
        problems += [f"stores {role} with {tensor.bits} bits"] if tensor.bits != bits else []
    if problems:
        raise Malformed(f"{where} ({operator}) {problems[0]}")


def _tensor(where: str, place: Any, stored: Mapping[str, np.ndarray]) -> Tensor:
    if not isinstance(place, list) or len(place) != 3 or not isinstance(place[0], str) or place[0] not in stored:
        raise Malformed(f"{where} needs a tensor that is not stored")
    name, bits, shape = place[0], place[1], _shape(place[2])
    array, count = stored[name], math.prod(shape)
    if type(bits) is not int or (bits != 32 and not 1 <= bits <= 8):
        raise Malformed(f"{where}: tensor {name} has {str(bits)[:20]} bits per element")
    if bits == 32:
        if array.dtype != np.float32 or array.shape != shape or not bool(np.isfinite(array).all()):
            raise Malformed(f"{where}: tensor {name} is not finite float32 of shape {shape}")
        return Tensor(name, array, bits)
    if array.dtype != np.uint8 or array.ndim != 1 or array.size != -(-count * bits // 8):
        raise Malformed(f"{where}: tensor {name} does not hold {count} codes of {bits} bits")
    return Tensor(name, unpack_codes(array, bits, count).reshape(shape), bits)


def _shape(plain: Any) -> tuple[int, ...]:
    if not isinstance(plain, list) or len(plain) > 6 or not all(type(n) is int and 0 < n <= 2**24 for n in plain):
        raise Malformed("a shape is not a short list of positive numbers")
    if math.prod(plain) > MAX_ELEMENTS:
        raise Malformed(f"a shape holds {math.prod(plain)} elements, at most {MAX_ELEMENTS} are allowed")
    return tuple(plain)


def _index(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _bound_memory(plan: Plan) -> None:
    last, live = plan.last_readers(), {0: math.prod(plan.input_shape)}
    for number, step in enumerate(plan.steps):
        live[number + 1] = math.prod(step.shape)
        if sum(live.values()) + step.work_elements > MAX_LIVE_ELEMENTS:
            raise Malformed(f"node {number} needs more than {MAX_LIVE_ELEMENTS} numbers per record at once")
        for value in {*step.inputs, number + 1}:
            if last.get(value, number if value not in plan.outputs else -1) == number:
                del live[value]
