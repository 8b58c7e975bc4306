"""`quantize`: a float network and calibration records become an `IntegerGraph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int8

# The rules of each family enter LOWERINGS and ASSEMBLIES when their file is imported.
from edgeward.codegen import (
    assembly_plain,
    assembly_weighted,
    lowering_elementwise,
    lowering_layout,
    lowering_linear,
    lowering_pooling,
)
from edgeward.codegen.draft import ASSEMBLIES, Draft, last
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.merging import merged
from edgeward.codegen.ranges import Range, grid_of, grids, observed
from edgeward.codegen.step import LOWERINGS, NoIntegerForm, Step
from edgeward.core.errors import ConfigError, DataError, ModelError, UnsupportedOperators
from edgeward.graph.fold import fold_batch_norm
from edgeward.graph.network import Network, Node

Problem: TypeAlias = tuple[str, str, str]
_ADVICE = {
    "softmax": "return logits; their order is that of the probabilities",
    "layer_norm": "use batch normalisation",
    "group_norm": "use batch normalisation",
    "select": "keep all rows and columns",
    "permute": "keep the channels first",
}
_EXPECTED = "layers on images [C, H, W] and vectors [F] that int8 can express"
RULES = (lowering_linear, lowering_elementwise, lowering_pooling, lowering_layout, assembly_weighted, assembly_plain)


def quantize(
    network: Network, calibration: Mapping[str, Float[np.ndarray, "n ..."]], *, percentile: float = 100.0
) -> IntegerGraph:
    """Return `network` in int8: weights symmetric per output channel, activations affine per value.

    Batch normalisation is folded, rectifiers and padding move into the layer that carries them, channels come last
    everywhere (the columns of a linear layer behind a flattened image are reordered). Quantised layers keep the grid
    of their weights and the declared range of their input; activations have 8 bits always, also where fewer were
    declared. The operator `quantize` knows for each graph operator is in the files `lowering_*`.

    Args: `calibration` float32 [n, *shape] per input of the network, channels first; a few hundred records as the
    network will meet them. `percentile` below 100 cuts that share of the elements off both ends of every range.
    Guarantee: no accumulator can leave 32 bits, for any int8 input (proved from the weights, else refused); the loss of
    accuracy is not bounded: measure it. Cost: one float pass over the records, two with a percentile.
    Raises: `UnsupportedOperators` with all layers that have no integer form, `DataError` for other records,
    `ModelError` for weights that are not finite.
    """
    if not 50 < percentile <= 100:
        raise ConfigError(
            "percentile is outside its range",
            expected="a number above 50, at most 100",
            came=str(percentile),
            fix="use 100 (the full range) or 99.9",
        )
    network.finite()
    network = fold_batch_norm(network)
    steps = merged(_steps(network), network.outputs)
    ranges = observed(network, _checked(network, calibration), percentile)
    return _assembled(network, steps, ranges)


def _steps(network: Network) -> list[Step]:
    """Return the step of every node, or raise with all that have none."""
    flat = [name for name in network.inputs if len(network.values[name].shape) not in (1, 3)]
    problems: list[Problem] = [(name, "input", "use images [C, H, W] or vectors [F]") for name in flat]
    found = [_lowered(network, node) for node in network.nodes]
    problems += [problem for problem in found if not isinstance(problem, Step)]
    if problems:
        raise UnsupportedOperators(problems, expected=_EXPECTED)
    return [step for step in found if isinstance(step, Step)]


def _lowered(network: Network, node: Node) -> Step | Problem:
    try:
        if node.operator not in LOWERINGS:
            raise NoIntegerForm(_ADVICE.get(node.operator, "use convolutions, linear layers, pooling and activations"))
        if len(network.values[node.output].shape) not in (1, 3):
            raise NoIntegerForm("use images [C, H, W] and vectors [F]")
        return LOWERINGS[node.operator](network, node)
    except NoIntegerForm as problem:
        return (node.layer or node.name, node.operator, problem.fix)


def _assembled(network: Network, steps: Sequence[Step], ranges: Mapping[str, Range]) -> IntegerGraph:
    draft = Draft(network, grids(steps, network.inputs, ranges, _declared(network)))
    for name in network.inputs:
        draft.declare(name, last(network.values[name].shape), draft.grids[name])
    problems = [problem for step in steps for problem in _entered(draft, step)]
    flat = [name for name in network.outputs if name in draft.order]
    problems += [(name, "output", "return the image before it is flattened") for name in flat]
    if problems:
        raise UnsupportedOperators(problems, expected=_EXPECTED)
    return draft.graph(network.outputs)


def _entered(draft: Draft, step: Step) -> list[Problem]:
    """Enter a step; on a problem a node of the right shape, so that the steps behind it are looked at as well."""
    try:
        ASSEMBLIES[step.operator](draft, step)
    except (NoIntegerForm, ModelError) as problem:
        draft.write(step, "reshape", {"shape": ()})
        return [(step.layer, step.operator, problem.fix)]
    return []


def _declared(network: Network) -> dict[str, Range]:
    """Return the range that quantised layers declare for their input, where all of them agree."""
    found: dict[str, set[Range]] = {}
    for node in network.nodes:
        if node.operator in ("quantized_conv2d", "quantized_linear") and node.attributes["activation_bits"] <= 8:
            scale, zero = (float(network.tensor(node, f"activation_{role}")) for role in ("scale", "zero_point"))
            top = 2 ** int(node.attributes["activation_bits"]) - 1
            found.setdefault(node.inputs[0], set()).add((-zero * scale, (top - zero) * scale))
    return {name: next(iter(ends)) for name, ends in found.items() if len(ends) == 1}


def _checked(network: Network, calibration: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    problems = [f"'{name}' is not an input" for name in calibration if name not in network.inputs]
    for name in network.inputs:
        shape = network.values[name].shape
        if name not in calibration:
            problems.append(f"'{name}' is missing")
        elif calibration[name].dtype != np.float32 or tuple(calibration[name].shape[1:]) != shape:
            came = calibration[name]
            problems.append(f"'{name}' is {came.dtype} {list(came.shape)}, not float32 [n, {shape}]")
        elif not np.isfinite(calibration[name]).all():
            problems.append(f"'{name}' holds NaN or infinity")
    counts = {len(array) for array in calibration.values()}
    problems += [f"the inputs have {sorted(counts)} records"] if len(counts) != 1 or 0 in counts else []
    if problems:
        raise DataError(
            "the calibration records do not fit the network",
            expected="one float32 array [n, *shape], n at least 1, per input",
            came="; ".join(problems),
            fix="give the records that the network was trained on, preprocessed alike",
        )
    return calibration


def with_argmax(graph: IntegerGraph) -> IntegerGraph:
    """Return `graph` with its last output replaced by the index of its largest element (int32, four bytes)."""
    *others, scores = graph.outputs
    if len(graph.values[scores].shape) != 1:
        raise ModelError(
            "the last output is not a vector of scores",
            expected="shape [classes]",
            came=str(list(graph.values[scores].shape)),
            fix="end the network with a linear layer or flatten its result",
        )
    name = f"{scores}:argmax"
    node = IntegerNode(name, "argmax", (scores,), name)
    values = {**graph.values, name: IntegerValue(name, (4,), 1.0, 0)}
    return replace(graph, outputs=(*others, name), nodes=(*graph.nodes, node), values=values)


def to_int8(value: IntegerValue, x: Float[np.ndarray, "n ..."]) -> Int8[np.ndarray, "n ..."]:
    """Return float records [n, C, H, W] or [n, F] on the grid of `value`, channels last, saturating."""
    moved = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    if tuple(moved.shape[1:]) != value.shape:
        raise DataError(
            f"the records do not fit the value '{value.name}'",
            expected=f"[n, C, H, W] or [n, F] for {list(value.shape)} with channels last",
            came=str(list(x.shape)),
            fix="give a batch of records, channels first",
        )
    return np.ascontiguousarray(grid_of(value).nearest(moved))


def from_int8(value: IntegerValue, q: Int8[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    """Return what int8 records stand for as float32, channels first."""
    real = grid_of(value).real(q).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(real, -1, 1)) if real.ndim == 4 else real
