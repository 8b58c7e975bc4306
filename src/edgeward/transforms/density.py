"""How many weights each layer keeps: uniform, or Erdős–Rényi-kernel densities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class ErdosRenyiKernel:
    """Layer densities proportional to (sum of dimensions) / (product of dimensions), so that small layers stay denser.

    Layers whose density would exceed 1 stay dense and the others share what is left.
    Source: Evci et al., RigL, ICML 2020, section 3 (ERK); Mocanu et al., 2018 (SET).
    """

    density: float

    def __post_init__(self) -> None:
        """Refuse densities outside (0, 1]."""
        if not 0 < self.density <= 1:
            raise ConfigError("density", expected="in (0, 1]", came=str(self.density), fix="use 0.05 for 5 %")

    def densities(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
        """Return each layer's density; the sum over layers of density times size is `density` of all weights.

        >>> ErdosRenyiKernel(0.5).densities({"a": (10, 10), "b": (2, 5)})["b"]
        1.0
        """
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
        dense: set[str] = set()
        while True:
            rest = [name for name in shapes if name not in dense]
            room = self.density * sum(sizes.values()) - sum(sizes[name] for name in dense)
            factor = room / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
            over = [name for name in rest if factor * raw[name] > 1]
            if not over:
                return {name: 1.0 if name in dense else factor * raw[name] for name in shapes}
            dense |= {max(over, key=lambda name: raw[name])}

    def counts(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Return each layer's number of kept weights (at least 1, which may exceed a tiny budget); see `apportion`."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        wanted = {name: share * sizes[name] for name, share in self.densities(shapes).items()}
        return apportion(wanted, sizes)


def apportion(wanted: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, int]:
    """Round wanted counts so that they add up to the rounded total: largest remainders first, ties in order.

    >>> apportion({"a": 1.5, "b": 2.5}, {"a": 4, "b": 4})
    {'a': 2, 'b': 2}
    """
    counts = {name: max(1, min(sizes[name], math.floor(value + 1e-9))) for name, value in wanted.items()}
    short = round(sum(wanted.values())) - sum(counts.values())
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: max(0, short)]:
        counts[name] = min(sizes[name], counts[name] + 1)
    return counts
