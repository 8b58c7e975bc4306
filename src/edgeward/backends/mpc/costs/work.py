"""What a network asks of any protocol: products with known weights, comparisons, selections, truncations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from edgeward.core.errors import UnsupportedOperators
from edgeward.graph import fold_batch_norm, remove_identities
from edgeward.graph.network import Network, Node


@final
@dataclass(frozen=True)
class Product:
    """`count` products of weights [rows, inner], which one side knows, with shared values [inner, columns]."""

    rows: int
    inner: int
    columns: int
    count: int = 1

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates."""
        return self.count * self.rows * self.inner * self.columns


@final
@dataclass(frozen=True)
class Image:
    """Geometry of a convolution, for packings that depend on it; `records` images, `size` is padded on both sides."""

    records: int
    channels: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    result: tuple[int, int]


@final
@dataclass(frozen=True)
class Work:
    """The work of one node for a batch.

    `products` with weights, and the `image` where they are a convolution's; `rectified` values, all at once;
    `maxima` comparisons of two values, in `levels` turns; `multiplied` pairs of secrets; `truncated` values; `inputs`
    and `outputs` values read and written.
    """

    name: str
    layer: str
    operator: str
    inputs: int
    outputs: int
    products: tuple[Product, ...] = ()
    image: Image | None = None
    rectified: int = 0
    maxima: int = 0
    levels: int = 0
    multiplied: int = 0
    truncated: int = 0


@final
@dataclass(frozen=True)
class _Node:
    """A node with what its rule needs."""

    node: Node
    network: Network
    records: int
    inputs: int = field(default=0)
    outputs: int = field(default=0)

    def done(self, **work: object) -> Work:
        node = self.node
        return Work(node.name, node.layer or node.name, node.operator, self.inputs, self.outputs, **work)  # type: ignore[arg-type]


def work_of(network: Network, records: int = 1) -> tuple[Work, ...]:
    """Return the work of every node of `network` for `records` inputs, batch norms folded into the layers before them.

    Raises: `UnsupportedOperators` with every node whose work is not counted here.
    """
    network = fold_batch_norm(remove_identities(network))
    unknown = [(n.layer or n.name, n.operator, _FIX) for n in network.nodes if n.operator not in _RULES]
    if unknown:
        raise UnsupportedOperators(unknown, expected=", ".join(sorted(_RULES)))
    found = []
    for node in network.nodes:
        inputs = records * sum(network.values[name].elements for name in node.inputs)
        case = _Node(node, network, records, inputs, records * network.values[node.output].elements)
        found.append(_RULES[node.operator](case))
    return tuple(found)


def _conv2d(case: _Node) -> Work:
    a, weight = case.node.attributes, case.network.tensor(case.node, "weight").shape
    shape, (high, wide) = (
        case.network.values[case.node.inputs[0]].shape,
        case.network.values[case.node.output].shape[1:],
    )
    groups, (vertical, horizontal) = int(a["groups"]), a["padding"]
    outputs, inner = weight[0] // groups, weight[1]
    if "winograd" in a:
        tile = int(a["winograd"])
        columns = case.records * -(-high // tile) * -(-wide // tile)
        product = Product(outputs, inner, columns, (tile + 2) ** 2)
    else:
        product = Product(outputs, inner * weight[2] * weight[3], case.records * high * wide, groups)
    size = (shape[1] + 2 * vertical, shape[2] + 2 * horizontal)
    stride = (int(a["stride"][0]), int(a["stride"][1]))
    image = Image(case.records, shape[0], weight[0], size, (weight[2], weight[3]), stride, groups, (high, wide))
    return case.done(products=(product,), image=image, truncated=case.outputs)


def _linear(case: _Node) -> Work:
    rows, inner = case.network.tensor(case.node, "weight").shape
    return case.done(products=(Product(rows, inner, case.outputs // rows),), truncated=case.outputs)


def _gain(case: _Node) -> Work:
    return case.done(products=(Product(1, 1, 1, case.outputs),), truncated=case.outputs)


def _arithmetic(case: _Node) -> Work:
    """Return the work of a product or quotient: free by a public number but for the truncation."""
    if len(case.node.inputs) == 2:
        return case.done(multiplied=case.outputs, truncated=case.outputs)
    return case.done(truncated=case.outputs) if "scalar" in case.node.attributes else _gain(case)


def _max_pool(case: _Node) -> Work:
    kernel = case.node.attributes["kernel"]
    window = math.prod(kernel) if isinstance(kernel, tuple | list) else int(kernel) ** 2
    # the published library goes through a window one value after another
    return case.done(maxima=case.outputs * (window - 1), levels=window - 1)


_FIX = "no closed form yet; use relu, pooling, sums, hard activations and linear layers"
_RULES: Mapping[str, Callable[[_Node], Work]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _gain,
    "relu": lambda case: case.done(rectified=case.outputs),
    **dict.fromkeys(("clip", "hard_sigmoid"), lambda case: case.done(rectified=2 * case.outputs)),
    "hard_swish": lambda case: case.done(
        rectified=2 * case.outputs, multiplied=case.outputs, truncated=2 * case.outputs
    ),
    "max_pool2d": _max_pool,
    **dict.fromkeys(("avg_pool2d", "adaptive_avg_pool2d", "mean"), lambda case: case.done(truncated=case.outputs)),
    **dict.fromkeys(("mul", "div"), _arithmetic),
    **dict.fromkeys(
        ("add", "sub", "identity", "reshape", "permute", "slice", "select", "pad", "concat"), lambda case: case.done()
    ),
}
