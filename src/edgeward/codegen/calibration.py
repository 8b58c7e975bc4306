"""Calibration records, checked; and a network that carries the ranges they gave, or stand-ins for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from edgeward.codegen.ranges import Range, observed
from edgeward.core.errors import ConfigError, DataError, ModelError
from edgeward.graph.fold import fold_batch_norm
from edgeward.graph.network import FOLDED, Network

# Ranges follow from the state like folded weights do: another state may not be swapped in under them.
_RANGE = f"{FOLDED}range:"


def calibrated(
    network: Network, calibration: Mapping[str, Float[np.ndarray, "n ..."]], *, percentile: float = 100.0
) -> Network:
    """Return `network`, normalisation folded, with the range of every value over the records among its tensors.

    Args: as of `quantize`, which gives for the result alone (`quantize_calibrated`) what it gives for both.
    Guarantee: equal outputs up to the rounding of the fold; two numbers per value remain of the records.
    Cost and errors: as of `quantize`.
    """
    network.finite()
    folded = fold_batch_norm(network)
    ranges = observed(folded, checked(folded, calibration), percentile_of(percentile))
    held = {f"{_RANGE}{name}": torch.tensor(ends, dtype=torch.float64) for name, ends in ranges.items()}
    return replace(folded, tensors={**folded.tensors, **held})


def stored_ranges(network: Network) -> dict[str, Range]:
    """Return the ranges that `calibrated` left. Raises: `ModelError` where a value has none."""
    found = {key.removeprefix(_RANGE): t.tolist() for key, t in network.tensors.items() if key.startswith(_RANGE)}
    values = [*network.inputs, *(node.output for node in network.nodes)]
    missing = [name for name in values if name not in found]
    if missing:
        raise ModelError(
            f"{len(missing)} values have no range",
            expected="the range of every value, from calibration records",
            came=", ".join(missing[:5]),
            fix="calibrate the network first with `codegen.calibration.calibrated`",
        )
    return {name: (low, high) for name, (low, high) in found.items()}


def has_ranges(network: Network) -> bool:
    """Return whether `calibrated` made `network`."""
    return any(key.startswith(_RANGE) for key in network.tensors)


def stand_in_ranges(network: Network) -> dict[str, Range]:
    """Return a range for every value where no record was seen: all different, so that no value shares its grid.

    Whatever real ranges add to a graph (a table where the grids of a concatenation differ) these add too.
    """
    values = [*network.inputs, *(node.output for node in network.nodes)]
    return {name: (-1.0 - i / 256, 1.0 + i / 256) for i, name in enumerate(values)}


def percentile_of(percentile: float) -> float:
    """Return a percentile that ranges can be cut at. Raises: `ConfigError` for another."""
    if not 50 < percentile <= 100:
        raise ConfigError(
            "percentile is outside its range",
            expected="a number above 50, at most 100",
            came=str(percentile),
            fix="use 100 (the full range) or 99.9",
        )
    return percentile


def checked(network: Network, calibration: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return the records. Raises: `DataError` with all that does not fit the inputs of `network`."""
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
