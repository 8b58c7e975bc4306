"""`Step`: one operator of a float network on its way to integers, after folding and before scales are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np

from edgeward.core.registry import Registry
from edgeward.graph.network import Network, Node

INFINITY = float("inf")


@final
class NoIntegerForm(Exception):
    """A node that integers cannot express; `fix` says what the author of the network can do."""

    def __init__(self, fix: str) -> None:
        """Keep the advice."""
        super().__init__(fix)
        self.fix = fix


@final
@dataclass(frozen=True)
class Step:
    """A float operator; arrays are float64 in the network's own layout ([O, I, H, W], channels first).

    `operator` is one of
      conv2d (weight, bias, scale?; stride, padding (top, left, bottom, right), dilation, groups), linear (weight, bias,
      scale?), affine (gain, shift: one number per channel), add and mul of two values (add: signs), clamp, unary
      (function), pad (padding of height and width), max_pool2d, avg_pool2d, global_avg_pool, concat, shortcut (stride,
      before, after), reshape.
    `low` and `high` bound the result: the rectifier that was merged into the step. `scale` is the given step of the
    weights per output channel, where a quantised layer brings one.
    """

    name: str
    layer: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    low: float = -INFINITY
    high: float = INFINITY

    @property
    def bounded(self) -> bool:
        """Whether a rectifier was merged into this step."""
        return (self.low, self.high) != (-INFINITY, INFINITY)


Lowering: TypeAlias = Callable[[Network, Node], Step]

LOWERINGS: Registry[Lowering] = Registry("operator with an integer form")
"""Graph operator -> the step it becomes; filled by the files `lowering_*`, one per family."""


def step(
    node: Node,
    operator: str,
    attributes: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    **bounds: float,
) -> Step:
    """Return the step that stands for `node`."""
    layer = node.layer or node.name
    return Step(node.name, layer, operator, node.inputs, node.output, attributes or {}, arrays or {}, **bounds)


def array(network: Network, node: Node, role: str) -> np.ndarray:
    """Return a tensor of `node` in float64."""
    return np.asarray(network.tensor(node, role).detach().double().numpy())


def shape_of(network: Network, node: Node) -> tuple[int, ...]:
    """Return the shape of the result of `node` per record, channels first."""
    return network.values[node.output].shape
