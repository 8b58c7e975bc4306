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
from edgeward.codegen.calibration import checked, has_ranges, percentile_of, stand_in_ranges, stored_ranges
from edgeward.codegen.draft import ASSEMBLIES, Draft, last
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.merging import merged
from edgeward.codegen.ranges import Range, grid_of, grids, observed
from edgeward.codegen.step import LOWERINGS, NoIntegerForm, Step
from edgeward.core.errors import DataError, ModelError, UnsupportedOperators
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
    percentile = percentile_of(percentile)
    network.finite()
    network = fold_batch_norm(network)
    steps = merged(_steps(network), network.outputs)
    ranges = observed(network, checked(network, calibration), percentile)
    return _assembled(network, steps, ranges, _declared(network))


def quantize_calibrated(network: Network) -> IntegerGraph:
    """Return in int8 what `calibration.calibrated` made, by the ranges it carries.

    Guarantee: equal, bit for bit, to `quantize` of the network and the records that it was calibrated with.
    Errors: as of `quantize`; `ModelError` where a value has no range.
    """
    network.finite()
    network = fold_batch_norm(network) if not has_ranges(network) else network
    steps = merged(_steps(network), network.outputs)
    return _assembled(network, steps, stored_ranges(network), _declared(network))


def structure(network: Network) -> IntegerGraph:
    """Return the integer graph of `network` as far as it is known without a record: nodes, shapes and bytes.

    Weights are rounded as they are; scales, zero points and biases stand for ranges that nobody measured, so that the
    result is good for counting memory and must not be run. Every table that two grids may need between them is there.
    Errors: as of `quantize`.
    """
    network.finite()
    network = fold_batch_norm(network) if not has_ranges(network) else network
    return _assembled(network, merged(_steps(network), network.outputs), stand_in_ranges(network), {})


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


def _assembled(
    network: Network, steps: Sequence[Step], ranges: Mapping[str, Range], declared: Mapping[str, Range]
) -> IntegerGraph:
    draft = Draft(network, grids(steps, network.inputs, ranges, declared))
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
