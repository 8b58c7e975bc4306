"""One C statement per integer operator: the kernel's call with its shapes and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.codegen.integer import IntegerGraph, IntegerNode
from edgeward.codegen.scratch import scratch_bytes
from edgeward.codegen.window import Window, image, pair, window_of
from edgeward.core.registry import Registry


@final
@dataclass(frozen=True)
class Place:
    """Where a node finds everything: `value` gives the C expression of a value, `tensor` the offset in the weights."""

    graph: IntegerGraph
    value: Callable[[str], str]
    offsets: Mapping[str, tuple[int, int]]
    scratch: str

    def tensor(self, node: IntegerNode, role: str) -> str:
        """Return the C expression of a tensor's first byte."""
        return f"weights + {self.offsets[node.tensors[role]][0]}"

    def zero(self, name: str) -> int:
        """Return the zero point of a value."""
        return int(self.graph.values[name].zero_point)

    def elements(self, name: str) -> int:
        """Return the number of elements of a value."""
        return int(np.prod(self.graph.values[name].shape))


STATEMENTS: Registry[Callable[[Place, IntegerNode], list[str]]] = Registry("emitted operator")


def _initial(kind: str, name: str, numbers: list[int]) -> str:
    return f"static const {kind} {name} = {{{', '.join(map(str, numbers))}}};"


def _window(place: Place, node: IntegerNode, window: Window, groups: int, fill: int) -> str:
    source, target = (image(place.graph.values[name].shape) for name in (node.inputs[0], node.output))
    numbers = [*source, *target, *window.kernel, *window.stride, *window.padding[:2], *window.dilation, groups, fill]
    return _initial("ew_window", "window", numbers)


def _scale(place: Place, node: IntegerNode, multiplier: str = "multiplier") -> str:
    names = (multiplier, "shift", "low", "high")
    first, shift, low, high = (int(node.attributes[name]) for name in names)
    return _initial("ew_scale", "scale", [first, shift, place.zero(node.output), low, high])


def _channel_lines(place: Place, node: IntegerNode) -> list[str]:
    parts = [place.tensor(node, role) for role in ("bias", "multiplier", "shift")]
    limits = [place.zero(node.output), int(node.attributes["low"]), int(node.attributes["high"])]
    return [f"const ew_channels channels = {{{', '.join([*parts, *map(str, limits)])}}};"]


def _weight(place: Place, node: IntegerNode) -> str:
    return f"(const int8_t *)({place.tensor(node, 'weight')})"


@STATEMENTS.register("conv2d")
def _conv2d(place: Place, node: IntegerNode) -> list[str]:
    window = _window(
        place, node, window_of(place.graph, node), int(node.attributes["groups"]), place.zero(node.inputs[0])
    )
    scratch = place.scratch if scratch_bytes(place.graph, node) else "0"
    x, y = place.value(node.inputs[0]), place.value(node.output)
    call = f"ew_conv2d(&window, {x}, {_weight(place, node)}, &channels, {y}, {scratch});"
    return [window, *_channel_lines(place, node), call]


@STATEMENTS.register("depthwise")
def _depthwise(place: Place, node: IntegerNode) -> list[str]:
    window = _window(place, node, window_of(place.graph, node), 1, place.zero(node.inputs[0]))
    x, y = place.value(node.inputs[0]), place.value(node.output)
    return [
        window,
        *_channel_lines(place, node),
        f"ew_depthwise(&window, {x}, {_weight(place, node)}, &channels, {y});",
    ]


@STATEMENTS.register("linear")
def _linear(place: Place, node: IntegerNode) -> list[str]:
    x, y = place.value(node.inputs[0]), place.value(node.output)
    sizes = place.elements(node.inputs[0]), place.elements(node.output)
    call = f"ew_linear({x}, {sizes[0]}, {_weight(place, node)}, {sizes[1]}, &channels, {y});"
    return [*_channel_lines(place, node), call]


@STATEMENTS.register("add")
def _add(place: Place, node: IntegerNode) -> list[str]:
    a, b = node.inputs
    zeros = f"{place.zero(a)}, {place.zero(b)}, {int(node.attributes['multiplier_b'])}"
    ends = f"{place.value(a)}, {place.value(b)}, {place.elements(a)}"
    return [
        _scale(place, node, "multiplier_a"),
        f"ew_add({ends}, {zeros}, &scale, {place.value(node.output)});",
    ]


@STATEMENTS.register("mul")
def _mul(place: Place, node: IntegerNode) -> list[str]:
    a, b = node.inputs
    ends = f"{place.value(a)}, {place.value(b)}, {place.elements(a)}, {place.elements(b)}"
    zeros = f"{place.zero(a)}, {place.zero(b)}"
    return [_scale(place, node), f"ew_mul({ends}, {zeros}, &scale, {place.value(node.output)});"]


@STATEMENTS.register("max_pool2d")
def _max_pool2d(place: Place, node: IntegerNode) -> list[str]:
    window = _window(place, node, window_of(place.graph, node), 1, 0)
    return [window, f"ew_max_pool(&window, {place.value(node.inputs[0])}, {place.value(node.output)});"]


@STATEMENTS.register("avg_pool2d")
def _avg_pool2d(place: Place, node: IntegerNode) -> list[str]:
    window = _window(place, node, window_of(place.graph, node), 1, place.zero(node.inputs[0]))
    call = f"ew_avg_pool(&window, {place.value(node.inputs[0])}, &scale, {place.value(node.output)});"
    return [window, _scale(place, node), call]


@STATEMENTS.register("global_avg_pool")
def _global_avg_pool(place: Place, node: IntegerNode) -> list[str]:
    x = node.inputs[0]
    height, width, channels = image(place.graph.values[x].shape)
    sizes = f"{height * width}, {channels}, {place.zero(x)}"
    call = f"ew_global_avg_pool({place.value(x)}, {sizes}, &scale, {place.value(node.output)});"
    return [_scale(place, node), call]


@STATEMENTS.register("lookup")
def _lookup(place: Place, node: IntegerNode) -> list[str]:
    x, table = node.inputs[0], f"(const int8_t *)({place.tensor(node, 'table')})"
    return [f"ew_lookup({place.value(x)}, {place.elements(x)}, {table}, {place.value(node.output)});"]


@STATEMENTS.register("concat")
def _concat(place: Place, node: IntegerNode) -> list[str]:
    height, width, whole = image(place.graph.values[node.output].shape)
    lines, first = [], 0
    for name in node.inputs:
        own = image(place.graph.values[name].shape)[2]
        sizes = f"{height * width}, {own}, {whole}"
        lines.append(f"ew_concat({place.value(name)}, {sizes}, {place.value(node.output)} + {first});")
        first += own
    return lines


@STATEMENTS.register("shortcut")
def _shortcut(place: Place, node: IntegerNode) -> list[str]:
    stride = Window(kernel=(1, 1), stride=pair(node.attributes["stride"]))
    window = _window(place, node, stride, 1, place.zero(node.output))
    before = int(node.attributes["before"])
    return [window, f"ew_shortcut(&window, {place.value(node.inputs[0])}, {before}, {place.value(node.output)});"]


@STATEMENTS.register("argmax")
def _argmax(place: Place, node: IntegerNode) -> list[str]:
    x = node.inputs[0]
    return [f"ew_argmax({place.value(x)}, {place.elements(x)}, {place.value(node.output)});"]
