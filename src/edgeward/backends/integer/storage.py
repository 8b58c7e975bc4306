"""The file of the int8 form: the integer graph as canonical JSON beside its weights, in one safetensors container."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeward.backends.cleartext.container import Malformed, canonical_json, read_container, read_json, write_container
from edgeward.codegen.arena import aligned
from edgeward.codegen.blob import pack
from edgeward.codegen.check import check
from edgeward.codegen.integer import INTEGER_OPERATORS, IntegerGraph, IntegerNode, IntegerValue
from edgeward.core.errors import ModelError

FORMAT, VERSION = "edgeward-int8", "1"
MAX_NODES, MAX_BYTES = 20_000, 1 << 28
_TYPES: Mapping[str, np.dtype[Any]] = {"i1": np.dtype("<i1"), "u1": np.dtype("<u1"), "i4": np.dtype("<i4")}
_LENGTHS = {"stride": (2,), "dilation": (2,), "kernel": (2,), "padding": (4,), "shape": (1, 3)}


def to_file(graph: IntegerGraph) -> bytes:
    """Return the file of `graph`; the same graph gives the same bytes. Errors: `ModelError` where `check` finds one."""
    check(graph)
    values = [*graph.inputs, *(node.output for node in graph.nodes)]
    places = {name: number for number, name in enumerate(values)}
    tensors = {key: number for number, key in enumerate(graph.tensors)}
    plain = {
        "input": len(graph.inputs),
        "values": [_value(graph.values[name]) for name in values],
        "nodes": [_node(node, places, tensors) for node in graph.nodes],
        "outputs": [places[name] for name in graph.outputs],
        "tensors": [[_type(array), list(array.shape)] for array in graph.tensors.values()],
    }
    weights = np.frombuffer(pack(graph), np.uint8)
    return write_container({"weights": weights}, {"format": FORMAT, "version": VERSION, "graph": canonical_json(plain)})


def _value(value: IntegerValue) -> list[Any]:
    return [[int(extent) for extent in value.shape], float(value.scale), int(value.zero_point)]


def _node(node: IntegerNode, places: Mapping[str, int], tensors: Mapping[str, int]) -> list[Any]:
    settings = {
        name: [int(n) for n in setting] if name in _LENGTHS else int(setting)
        for name, setting in node.attributes.items()
    }
    inputs, held = [places[name] for name in node.inputs], {role: tensors[key] for role, key in node.tensors.items()}
    return [node.name, node.operator, inputs, settings, held]


def _type(array: np.ndarray) -> str:
    return next(name for name, kind in _TYPES.items() if kind == array.dtype)


def from_file(artefact: bytes) -> IntegerGraph:
    """Return the integer graph of a file of foreign origin.

    Guarantee: what is accepted passes `codegen.check`, so that neither the integer reference nor the emitted C leaves
    its memory; at most `MAX_BYTES` of values per record. Raises: `ModelError`, naming what is wrong.
    """
    try:
        tensors, metadata = read_container(artefact)
        kind = {name: metadata.get(name) for name in ("format", "version")}
        _require(kind == {"format": FORMAT, "version": VERSION}, f"another format: {str(kind)[:80]}")
        _require(set(metadata) == {"format", "version", "graph"} and set(tensors) == {"weights"}, "unknown parts")
        graph = _graph(read_json(metadata["graph"]), tensors["weights"])
        check(graph)
    except (Malformed, ModelError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            "the int8 file is malformed",
            expected=f"a file of format {FORMAT} {VERSION}",
            came=f"{error}".splitlines()[0][:300] if str(error) else type(error).__name__,
            fix="write the file again",
        ) from error
    return graph


def _graph(plain: Any, blob: np.ndarray) -> IntegerGraph:
    _require(isinstance(plain, dict) and set(plain) == {"input", "values", "nodes", "outputs", "tensors"}, "no graph")
    _require(all(isinstance(plain[k], list) for k in ("values", "nodes", "outputs", "tensors")), "no lists")
    _require(len(plain["nodes"]) <= MAX_NODES and plain["input"] == 1, "too many nodes, or not one input")
    _require(len(plain["values"]) == 1 + len(plain["nodes"]), "as many values as inputs and nodes")
    values = [_read_value(number, entry) for number, entry in enumerate(plain["values"])]
    _require(sum(value.bytes for value in values) <= MAX_BYTES, f"values of more than {MAX_BYTES} bytes")
    arrays = _arrays(plain["tensors"], blob)
    names = [value.name for value in values]
    nodes = [_read_node(number, entry, names, len(arrays)) for number, entry in enumerate(plain["nodes"])]
    outputs = [names[place] for place in _places(plain["outputs"], len(names))]
    _require(bool(outputs), "no output")
    keyed = {f"t{number}": array for number, array in enumerate(arrays)}
    graph = IntegerGraph((names[0],), tuple(outputs), tuple(nodes), {v.name: v for v in values}, keyed)
    _require(pack(graph) == blob.tobytes(), "weights that are not in canonical form")
    return graph


def _read_value(number: int, entry: Any) -> IntegerValue:
    shape, scale, zero = entry
    _require(_extents(shape) and len(shape) in (1, 3) and math.prod(shape) <= MAX_BYTES, "a value of impossible shape")
    _require(isinstance(scale, float) and 0 < scale < math.inf, "a scale that is not positive")
    _require(type(zero) is int and -128 <= zero <= 127, "a zero point outside int8")
    return IntegerValue(f"v{number}", tuple(shape), scale, zero)


def _arrays(entries: list[Any], blob: np.ndarray) -> list[np.ndarray]:
    raw, start, arrays = blob.tobytes(), 0, []
    for kind, shape in entries:
        _require(
            isinstance(kind, str) and kind in _TYPES and _extents(shape) and len(shape) <= 4, "a tensor of no kind"
        )
        size = math.prod(shape) * _TYPES[kind].itemsize
        _require(start + aligned(size) <= len(raw), "weights that are cut short")
        array = np.frombuffer(raw, _TYPES[kind], math.prod(shape), start).reshape(shape)
        arrays.append(array.astype(_TYPES[kind].newbyteorder("=")))
        start += aligned(size)
    _require(start == len(raw), "weights of another length")
    return arrays


def _read_node(number: int, entry: Any, names: list[str], tensors: int) -> IntegerNode:
    name, operator, inputs, settings, held = entry
    _require(isinstance(name, str) and len(name) <= 200 and name.isprintable(), "a node without a name")
    _require(isinstance(operator, str) and operator in INTEGER_OPERATORS, f"the unknown operator {str(operator)[:40]}")
    _require(isinstance(settings, dict) and isinstance(held, dict), "a node without settings")
    for key, setting in settings.items():
        fits = _list_of(setting, _whole) and len(setting) in _LENGTHS[key] if key in _LENGTHS else _whole(setting)
        _require(fits, f"{operator}: {key[:40]} of another form")
    _places(list(held.values()), tensors)
    read = tuple(names[place] for place in _places(inputs, number + 1))
    attributes = {key: tuple(setting) if key in _LENGTHS else setting for key, setting in settings.items()}
    keys = {role: f"t{place}" for role, place in held.items()}
    return IntegerNode(name, operator, read, names[number + 1], attributes, keys)


def _places(numbers: Any, count: int) -> list[int]:
    _require(_list_of(numbers, lambda n: _whole(n) and 0 <= n < count), "a reference to nothing")
    return list(numbers)


def _extents(shape: Any) -> bool:
    return _list_of(shape, lambda n: _whole(n) and n >= 1)


def _list_of(numbers: Any, good: Callable[[Any], bool]) -> bool:
    return isinstance(numbers, list) and all(good(n) for n in numbers)


def _whole(number: Any) -> bool:
    return type(number) is int and abs(number) <= 2**40


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise Malformed(problem)
