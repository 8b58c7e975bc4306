"""Calibration: the range of every value over given records, and the scale and zero point it leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from edgeward.codegen.integer import IntegerValue
from edgeward.codegen.step import Step
from edgeward.core.errors import DataError
from edgeward.graph.network import Network
from edgeward.graph.semantics import apply

Range: TypeAlias = tuple[float, float]
_CHUNK, _BINS = 64, 4096


@final
@dataclass(frozen=True)
class Grid:
    """Where int8 lies on the real line: real = (q - zero_point) scale."""

    scale: float
    zero_point: int

    def nearest(self, real: np.ndarray) -> np.ndarray:
        """Return the nearest int8 (ties to even before the zero point is added), saturating."""
        steps = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        clipped: np.ndarray = np.clip(steps, -128, 127).astype(np.int8)
        return clipped

    def real(self, quantised: np.ndarray) -> np.ndarray:
        """Return what int8 numbers stand for, in float64."""
        return (np.asarray(quantised, np.float64) - self.zero_point) * self.scale


def grid(low: float, high: float) -> Grid:
    """Return the finest grid of 256 points that holds [low, high] and 0 exactly.

    >>> grid(0.0, 255.0), grid(-1.0, 1.0).zero_point
    (Grid(scale=1.0, zero_point=-128), 0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1 / 255
    return Grid(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def grid_of(value: IntegerValue) -> Grid:
    """Return the grid of a value of an integer graph."""
    return Grid(value.scale, value.zero_point)


def observed(network: Network, calibration: Mapping[str, np.ndarray], percentile: float) -> dict[str, Range]:
    """Return the range of every value over the records; below 100, that share of each value's elements at both ends.

    Cost: one pass in chunks of 64 records, two where `percentile` is below 100 (histograms of 4096 bins).
    """
    ranges: dict[str, Range] = {}
    for name, batch in _values(network, calibration):
        low, high = ranges.get(name, (np.inf, -np.inf))
        ranges[name] = min(low, float(batch.min())), max(high, float(batch.max()))
    broken = [name for name, ends in ranges.items() if not np.isfinite(ends).all()]
    if broken:
        raise DataError(
            f"{len(broken)} values are not finite over the calibration records",
            expected="finite results of every layer",
            came=", ".join(broken[:5]),
            fix="check the records and the weights for NaN and infinity",
        )
    return ranges if percentile >= 100 else _trimmed(network, calibration, ranges, percentile)


def _trimmed(
    network: Network, calibration: Mapping[str, np.ndarray], ranges: Mapping[str, Range], percentile: float
) -> dict[str, Range]:
    counts = {name: np.zeros(_BINS, np.int64) for name in ranges}
    for name, batch in _values(network, calibration):
        low, high = ranges[name]
        counts[name] += np.histogram(batch.double().numpy(), _BINS, (low, high if high > low else low + 1))[0]
    result = {}
    for name, (low, high) in ranges.items():
        reached, tail = np.cumsum(counts[name]) / max(counts[name].sum(), 1), 1 - percentile / 100
        edges = np.linspace(low, high, _BINS + 1)
        first, last = int(np.searchsorted(reached, tail, "right")), int(np.searchsorted(reached, 1 - tail))
        result[name] = float(edges[min(first, _BINS)]), float(edges[min(last + 1, _BINS)])
    return result


def _values(network: Network, calibration: Mapping[str, np.ndarray]) -> Iterable[tuple[str, Tensor]]:
    """Yield (name, float32 batch) of every value, chunk by chunk."""
    records = len(next(iter(calibration.values())))
    for start in range(0, records, _CHUNK):
        known = {k: torch.from_numpy(np.ascontiguousarray(x[start : start + _CHUNK])) for k, x in calibration.items()}
        yield from list(known.items())
        last = {name: step for step, node in enumerate(network.nodes) for name in node.inputs}
        for step, node in enumerate(network.nodes):
            held = {role: network.tensors[key] for role, key in node.tensors.items()}
            shape, inputs = network.values[node.output].shape, [known[name] for name in node.inputs]
            with torch.no_grad():
                known[node.output] = apply(node, held, inputs, shape, min(_CHUNK, records - start))
            yield node.output, known[node.output]
            for name in set(node.inputs):
                if last[name] == step:
                    del known[name]


def grids(
    steps: Sequence[Step], inputs: Iterable[str], ranges: Mapping[str, Range], declared: Mapping[str, Range]
) -> dict[str, Grid]:
    """Return the grid of every value that the steps read or write.

    Values that an operator moves without arithmetic share one grid, which holds the ranges of all of them; the inputs
    of a concatenation join it where nobody else reads them. A range that a quantised layer `declared` for its input
    stands in place of the calibrated ones.
    """
    parent = {name: name for name in (*inputs, *(step.output for step in steps))}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    readers = [name for step in steps for name in set(step.inputs)]
    for step in steps:
        moved = step.operator in ("max_pool2d", "shortcut", "reshape", "pad")
        alone = [name for name in step.inputs if readers.count(name) == 1 and step.operator == "concat"]
        for name in step.inputs if moved else alone:
            parent[root(name)] = root(step.output)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return {name: found for group in groups.values() for found in [_joint(group, ranges, declared)] for name in group}


def _joint(names: Iterable[str], ranges: Mapping[str, Range], declared: Mapping[str, Range]) -> Grid:
    members = list(names)
    ends = [declared[n] for n in members if n in declared] or [ranges[n] for n in members]
    return grid(min(low for low, _ in ends), max(high for _, high in ends))
