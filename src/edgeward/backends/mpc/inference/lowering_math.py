"""How curved activations, normalisation and attention become steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from edgeward.backends.mpc.inference.draft import Draft
from edgeward.backends.mpc.inference.step import Secret
from edgeward.backends.mpc.inference.steps_attention import MatrixStep, SecretValueStep
from edgeward.backends.mpc.inference.steps_math import CurveStep, SoftmaxStep, StandardizeStep
from edgeward.backends.mpc.inference.steps_nonlinear import TruncateStep
from edgeward.backends.mpc.protocols.presets import SHAPES
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.protocols.standardize import Standardization
from edgeward.graph.network import Network, Node

Rule: TypeAlias = "Callable[[Draft, Node], None]"
# The attention weights keep these fraction bits more than the ring's.
_FINER = 6
_SCALE_BITS = 16


def math_problem(network: Network, node: Node) -> str:
    """Return what to do about a node of this file that has no protocol, or nothing."""
    shapes = [network.values[name].shape for name in node.inputs]
    if node.operator == "softmax" and node.attributes["axis"] != len(shapes[0]) - 1:
        return "move the axis of the softmax to the end"
    if node.operator in ("layer_norm", "group_norm"):
        if not 1e-8 <= node.attributes["epsilon"] <= 1:
            return "take an epsilon from 1e-8 to 1"
        if not 2 <= _normalized(node, shapes[0]) < 4096:
            return "normalise over 2 to 4095 values, or use nn.BatchNorm2d, which costs nothing after a convolution"
    if node.operator == "matmul" and not (len(shapes[0]) == len(shapes[1]) >= 2 and shapes[0][:-2] == shapes[1][:-2]):
        return "give both factors the same leading axes"
    if node.operator == "attention" and not shapes[0][:-2] == shapes[1][:-2] == shapes[2][:-2]:
        return "give queries, keys and values the same leading axes"
    return ""


def _curve(draft: Draft, node: Node) -> None:
    source, f = draft.read(node.inputs[0]), draft.ring.fraction
    name = "gelu_tanh" if node.attributes.get("approximate") == "tanh" else node.operator
    settings = {"count": draft.count(node.output), "shift": draft.fraction[source] - f, "layout": draft.layout}
    draft.emit(CurveStep, node, (source,), f, **settings, activation=name)


def _softmax(draft: Draft, node: Node) -> None:
    long = _rows_softmax(draft, node, draft.read(node.inputs[0]), draft.shape(node.output))
    f, count = draft.ring.fraction, draft.count(node.output)
    draft.emit(TruncateStep, node, (long,), f, count=count, shift=draft.fraction[long] - f)


def _rows_softmax(draft: Draft, node: Node, source: str, shape: tuple[int, ...]) -> str:
    """Append a softmax over the last axis; return the name of its long result."""
    shift = draft.fraction[source] - draft.ring.fraction
    rows, columns = math.prod(shape[:-1]), shape[-1]
    what = Softmax(rows, columns, shift, draft.ring.fraction, draft.layout)
    what.demands(draft.ring)  # refuses sizes that have no softmax
    settings = {"rows": rows, "columns": columns, "shift": shift, "layout": draft.layout}
    return draft.between(SoftmaxStep, node, (source,), what.result_fraction, **settings)


def _normalized(node: Node, shape: tuple[int, ...]) -> int:
    """Return over how many values a norm takes its means."""
    if node.operator == "layer_norm":
        return math.prod(int(extent) for extent in node.attributes["shape"])
    return math.prod(shape) // int(node.attributes["groups"])


def _norm(draft: Draft, node: Node) -> None:
    """Lower a layer norm or group norm, of which `sink_affines` left no weight."""
    source, shape = draft.read_plain(node.inputs[0], node), draft.shape(node.output)
    columns = _normalized(node, shape[1:])
    rows, epsilon = math.prod(shape) // columns, float(node.attributes["epsilon"])
    what = Standardization(rows, columns, draft.ring.fraction, epsilon, draft.layout)
    what.demands(draft.ring)  # refuses sizes that have no deviation
    settings = {"rows": rows, "columns": columns, "epsilon": epsilon, "layout": draft.layout}
    draft.emit(StandardizeStep, node, (source,), what.result_fraction, **settings)


def _matmul(draft: Draft, node: Node) -> None:
    sources = [draft.read_plain(value, node) for value in node.inputs]
    left, right = (draft.shape(value) for value in node.inputs)
    draft.emit(MatrixStep, node, sources, sum(draft.fraction[source] for source in sources), left=left, right=right)


def _attention(draft: Draft, node: Node) -> None:
    """Lower softmax(q k^T scale) v: two products of matrices and a softmax between them."""
    f = draft.ring.fraction
    query, key, value = (draft.read_plain(name, node) for name in node.inputs)
    left, right, last = (draft.shape(name) for name in node.inputs)
    mantissa, exponent = math.frexp(float(node.attributes["scale"]))
    factor, places = (
        (1, 1 - exponent) if mantissa == 0.5 else (round(mantissa * 2**_SCALE_BITS), _SCALE_BITS - exponent)
    )
    fraction = draft.fraction[query] + draft.fraction[key] + places
    settings = {"left": left, "right": right, "turned": True, "factor": factor, "places": places}
    scores = draft.between(MatrixStep, node, (query, key), fraction, **settings)
    shape = (*left[:-1], right[-2])
    long = _rows_softmax(draft, node, scores, shape)
    shift = draft.fraction[long] - f - _FINER
    weights = draft.between(TruncateStep, node, (long,), f + _FINER, count=math.prod(shape), shift=shift)
    draft.emit(MatrixStep, node, (weights, value), 2 * f + _FINER, left=shape, right=last)


def _constant(draft: Draft, node: Node) -> None:
    shape = draft.shape(node.output)
    secret = Secret(draft.label(node), shape[1:] or (1,), draft.ring.fraction, False)
    draft.model[secret.name] = draft.tensor(node, "value").reshape(secret.shape)
    draft.emit(SecretValueStep, node, (), draft.ring.fraction, secret=secret, shape=shape)


MATH_RULES: Mapping[str, Rule] = {
    **dict.fromkeys((name for name in SHAPES if name != "gelu_tanh"), _curve),
    "softmax": _softmax,
    **dict.fromkeys(("layer_norm", "group_norm"), _norm),
    "matmul": _matmul,
    "attention": _attention,
    "constant": _constant,
}
"""How every operator of this file is lowered."""
