"""How each operator of a network becomes a step, and which ones have no protocol yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from edgeward.backends.mpc.inference.draft import Draft
from edgeward.backends.mpc.inference.lowering_math import MATH_RULES, math_problem
from edgeward.backends.mpc.inference.step import Secret
from edgeward.backends.mpc.inference.steps_linear import Gain, LinearStep, bias_name
from edgeward.backends.mpc.inference.steps_local import (
    AdaptivePoolStep,
    AveragePoolStep,
    MeanStep,
    MoveStep,
    PublicGainStep,
    PublicShiftStep,
    SecretShiftStep,
    SumStep,
)
from edgeward.backends.mpc.inference.steps_nonlinear import (
    ClipStep,
    MaxPoolStep,
    ProductStep,
    ReluStep,
    SpreadProductStep,
)
from edgeward.backends.mpc.protocols.linear import Use
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense, LinearMap, Shape
from edgeward.backends.mpc.protocols.pooling import max_pool_demands
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.protocols.winograd import SPARE_BITS, Winograd, filters
from edgeward.core.errors import ConfigError, UnsupportedOperators
from edgeward.graph.network import Network, Node

Rule: TypeAlias = "Callable[[Draft, Node], None]"
# Fraction bits that weights have beyond the ring's. Rounded to the ring's bits, they would make most of a deep
# network's error; the product's bits are dropped at once, so that nothing more is sent online, and up to four bytes
# of corrections a value.
_FINER = 4
# An open side comes as the largest float32.
_LARGEST_BOUND = 2.0**14


def check_supported(network: Network) -> None:
    """Raise `UnsupportedOperators` with every node that has no protocol."""
    found = [
        (node.layer or node.name, node.operator, fix) for node in network.nodes if (fix := _problem(network, node))
    ]
    if found:
        raise UnsupportedOperators(found, expected=f"operators with a protocol: {', '.join(sorted(RULES))}")


def _problem(network: Network, node: Node) -> str:
    """Return what to do about a node that has no protocol, or nothing."""
    a, inputs = node.attributes, [network.values[name].shape for name in node.inputs]
    if node.operator not in RULES:
        return _FIXES.get(node.operator, "no protocol yet; use relu, pooling, sums and linear layers")
    if node.operator == "clip" and max(abs(a["low"]), abs(a["high"])) >= _LARGEST_BOUND:
        return "give both bounds, below 2^14 in size, or use relu"
    if node.operator == "pad" and a["value"] != 0:
        return "pad with zeros"
    if node.operator == "mul" and len(inputs) == 2 and not _broadcasts(inputs, network.values[node.output].shape):
        return "give one factor the shape of the product, and the other as many axes"
    if node.operator == "div" and (len(inputs) == 2 or a.get("scalar") == 0):
        return "divide by a constant other than 0"
    if node.operator in ("mul", "div") and len(inputs) == 1 and inputs[0] != network.values[node.output].shape:
        return "give the value the shape of the product first"
    return math_problem(network, node)


def _broadcasts(factors: Sequence[Shape], product: Shape) -> bool:
    return product in factors and len({len(shape) for shape in factors}) == 1


def _linear(draft: Draft, node: Node) -> None:
    """Lower a conv2d or linear together with the others of its kind that read the same value."""
    value, f = node.inputs[0], draft.ring.fraction
    nodes = [other for other in draft.network.consumers(value) if other.operator == node.operator]
    source, shape = draft.read_plain(value, node), draft.shape(value)
    input_ = shape if node.operator == "conv2d" else (math.prod(shape[:-1]), shape[-1])
    uses = tuple(_use(draft, other, _map(other), "weight") for other in nodes)
    biased = tuple(_bias(draft, other, use) for other, use in zip(nodes, uses, strict=True))
    shapes = tuple(draft.shape(other.output) for other in nodes)
    spare = max(_spare(draft, use.map) for use in uses)
    settings = {"input": input_, "uses": uses, "biased": biased, "shapes": shapes, "weight_fraction": f + spare}
    draft.emit_all(LinearStep, nodes, (source,), draft.fraction[source] + f + spare, **settings, input_fraction=f)


def _map(node: Node) -> LinearMap:
    a = node.attributes
    if node.operator == "linear":
        return Dense()
    stride, padding, dilation = (_pair(a[name]) for name in ("stride", "padding", "dilation"))
    if "winograd" in a:
        return Winograd(a["winograd"], padding)
    return Convolution(stride, padding, dilation, int(a["groups"]))


def _spare(draft: Draft, map_: LinearMap) -> int:
    """Return how many fraction bits more than the ring's the weights of `map_` get, as far as there is room."""
    ring = draft.ring
    room = ring.bits - 1 - draft.layout.width - ring.fraction
    if not isinstance(map_, Winograd):
        return max(0, min(_FINER, room))
    wanted = SPARE_BITS[map_.tile]
    if room < wanted:
        raise ConfigError(
            f"no room for Winograd's convolution with tiles of {map_.tile} in {ring}",
            expected=f"{wanted} bits beside {ring.fraction} fraction bits and a comparison of {draft.layout.width}",
            came=f"{room}",
            fix="take tile 2, fewer fraction bits, or a narrower comparison",
        )
    return wanted


def _use(draft: Draft, node: Node, map_: LinearMap, role: str) -> Use:
    if isinstance(map_, Winograd):
        weights = filters(draft.tensor(node, role), map_.tile)
    else:
        # As they are: a copy in float64 would be twice a large model's size.
        weights = draft.network.tensor(node, role).detach().numpy()
    use = Use(f"{len(draft.steps)}:{node.name}", map_, tuple(weights.shape))
    draft.model[use.name] = weights
    return use


def _bias(draft: Draft, node: Node, use: Use) -> bool:
    if "bias" in node.tensors:
        draft.model[bias_name(use)] = draft.tensor(node, "bias")
    return "bias" in node.tensors


def _gain(draft: Draft, node: Node, gain: np.ndarray, bias: np.ndarray | None) -> None:
    """Lower a product with a tensor of the model that broadcasts over the value."""
    value, f = node.inputs[0], draft.ring.fraction
    source, shape = draft.read_plain(value, node), draft.shape(value)
    use = Use(draft.label(node), Gain(), tuple(gain.shape))
    draft.model[use.name] = gain
    if bias is not None:
        draft.model[bias_name(use)] = bias
    settings = {"input": shape, "uses": (use,), "biased": (bias is not None,), "shapes": (shape,)}
    draft.emit(LinearStep, node, (source,), draft.fraction[source] + f, **settings, weight_fraction=f, input_fraction=f)


def _batch_norm(draft: Draft, node: Node) -> None:
    scale, shift, mean, variance = (draft.tensor(node, role) for role in ("weight", "bias", "mean", "variance"))
    gain = scale / np.sqrt(variance + node.attributes["epsilon"])
    rank = len(draft.shape(node.output)) - 2
    _gain(draft, node, gain.reshape(-1, *([1] * rank)), shift - mean * gain)


def _sum(draft: Draft, node: Node) -> None:
    minus = node.operator == "sub"
    sources = [draft.read(value) for value in node.inputs]
    fraction = max(draft.fraction[source] for source in sources)
    if len(sources) == 2:
        draft.emit(SumStep, node, sources, fraction, minus=minus)
    elif "scalar" in node.attributes:
        number = float(node.attributes["scalar"])
        draft.emit(PublicShiftStep, node, sources, fraction, number=-number if minus else number)
    else:
        tensor = draft.tensor(node, "constant")
        secret = Secret(draft.label(node), tuple(tensor.shape), fraction, False)
        draft.model[secret.name] = -tensor if minus else tensor
        draft.emit(SecretShiftStep, node, sources, fraction, secret=secret)


def _product(draft: Draft, node: Node) -> None:
    if len(node.inputs) == 2:
        sources = [draft.read_plain(value, node) for value in node.inputs]
        fraction = sum(draft.fraction[source] for source in sources)
        shapes = [draft.shape(value) for value in node.inputs]
        if shapes[0] == shapes[1]:
            draft.emit(ProductStep, node, sources, fraction, count=draft.count(node.output))
        else:
            order = (0, 1) if shapes[0] == draft.shape(node.output) else (1, 0)
            settings = {"shape": shapes[order[0]], "factor": shapes[order[1]]}
            draft.emit(SpreadProductStep, node, [sources[i] for i in order], fraction, **settings)
    elif "scalar" in node.attributes:
        source, number = draft.read_plain(node.inputs[0], node), float(node.attributes["scalar"])
        number = 1 / number if node.operator == "div" else number
        spare = _finer(draft, number)
        fraction = draft.fraction[source] + draft.ring.fraction + spare
        draft.emit(PublicGainStep, node, (source,), fraction, number=number, spare=spare)
    else:
        tensor = draft.tensor(node, "constant")
        _gain(draft, node, 1 / tensor if node.operator == "div" else tensor, None)


def _finer(draft: Draft, number: float) -> int:
    """Return how many fraction bits more than the ring's a public factor below 1 gets to be as exact as one of 1."""
    if number == 0 or (number * 2.0**draft.ring.fraction).is_integer():
        return 0
    room = draft.ring.bits - 1 - draft.layout.width - draft.ring.fraction
    return max(0, min(-math.floor(math.log2(abs(number))), room))


def _relu(draft: Draft, node: Node) -> None:
    source, f = draft.read(node.inputs[0]), draft.ring.fraction
    settings = {"count": draft.count(node.output), "shift": draft.fraction[source] - f, "layout": draft.layout}
    draft.emit(ReluStep, node, (source,), f, **settings)


def _clip(draft: Draft, node: Node) -> None:
    source, f, a = draft.read(node.inputs[0]), draft.ring.fraction, node.attributes
    settings = {"count": draft.count(node.output), "shift": draft.fraction[source] - f, "layout": draft.layout}
    draft.emit(ClipStep, node, (source,), f, **settings, low=float(a["low"]), high=float(a["high"]))


def _max_pool(draft: Draft, node: Node) -> None:
    value, f = node.inputs[0], draft.ring.fraction
    shape, window = draft.shape(value), _window(draft.network, node)
    # Comparing the fraction bits that a product has too many costs less than dropping them before.
    layout, long = draft.layout, draft.fraction[draft.read(value)] - f
    if long and _pays(draft, shape, window, long):
        source, layout = draft.read(value), replace(layout, width=layout.width + long)
    else:
        source = draft.read_plain(value, node)
    draft.emit(MaxPoolStep, node, (source,), draft.fraction[source], input=shape, window=window, layout=layout)


def _pays(draft: Draft, shape: Shape, window: Window, long: int) -> bool:
    """Return whether pooling values with `long` fraction bits too many sends less than truncating them before."""
    if draft.layout.width + long > min(64, draft.ring.bits):
        return False
    wide, ring = replace(draft.layout, width=draft.layout.width + long), draft.ring
    before, after = (
        sum(demand.cost(ring).bytes for demand in max_pool_demands(shape, window, layout))
        for layout in (draft.layout, wide)
    )
    results = math.prod(window.output_shape(shape))
    return after + results * ring.element_bytes < before + math.prod(shape) * ring.element_bytes


def _average_pool(draft: Draft, node: Node) -> None:
    source, f = draft.read_plain(node.inputs[0], node), draft.ring.fraction
    shape = draft.shape(node.inputs[0])
    if node.operator == "adaptive_avg_pool2d":
        output = _pair(node.attributes["output"])
        sides = (shape[2] // output[0], shape[3] // output[1])
        if shape[2] % output[0] or shape[3] % output[1]:
            spare = draft.spare(np.array([(sides[0] + 2) * (sides[1] + 2)]))
            draft.emit(
                AdaptivePoolStep, node, (source,), draft.fraction[source] + f + spare, output=output, spare=spare
            )
            return
        window = Window(sides, sides)
    else:
        window = _window(draft.network, node)
    spare = draft.spare(window.counted(shape))
    draft.emit(AveragePoolStep, node, (source,), draft.fraction[source] + f + spare, window=window, spare=spare)


def _mean(draft: Draft, node: Node) -> None:
    source, axes = draft.read_plain(node.inputs[0], node), tuple(axis + 1 for axis in node.attributes["axes"])
    shape = draft.shape(node.inputs[0])
    spare = draft.spare(np.array([math.prod(shape[axis] for axis in axes)]))
    fraction = draft.fraction[source] + draft.ring.fraction + spare
    draft.emit(MeanStep, node, (source,), fraction, axes=axes, shape=draft.shape(node.output), spare=spare)


def _move(draft: Draft, node: Node) -> None:
    sources = [draft.read(value) for value in node.inputs]
    fraction = max(draft.fraction[source] for source in sources)
    settings = tuple(_frozen(node.attributes[name]) for name in _MOVED[node.operator])
    draft.emit(MoveStep, node, sources, fraction, settings=settings)


def _frozen(setting: object) -> object:
    return tuple(map(_frozen, setting)) if isinstance(setting, tuple | list) else setting


def _pair(setting: object) -> tuple[int, int]:
    first, second = setting if isinstance(setting, tuple | list) else (setting, setting)
    return int(first), int(second)


def _window(network: Network, node: Node) -> Window:
    a, x, y = node.attributes, network.values[node.inputs[0]].shape, network.values[node.output].shape
    window = Window(
        _pair(a["kernel"]),
        _pair(a["stride"]),
        _pair(a["padding"]),
        _pair(a.get("dilation", 1)),
        counts_padding=bool(a.get("count_pad", True)),
    )
    return window.grown((1, *x), (y[-2], y[-1]))


_MOVED: Mapping[str, tuple[str, ...]] = {
    "identity": (),
    "reshape": ("shape",),
    "permute": ("axes",),
    "slice": ("axis", "start", "stop", "step"),
    "select": ("axis", "index"),
    "pad": ("padding",),
    "concat": ("axis",),
}

RULES: Mapping[str, Rule] = {
    "conv2d": _linear,
    "linear": _linear,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("mul", "div"), _product),
    "relu": _relu,
    "clip": _clip,
    "max_pool2d": _max_pool,
    **dict.fromkeys(("avg_pool2d", "adaptive_avg_pool2d"), _average_pool),
    "mean": _mean,
    **dict.fromkeys(_MOVED, _move),
    **MATH_RULES,
}
"""How every operator with a protocol is lowered."""

_FIXES: Mapping[str, str] = {
    "leaky_relu": "use relu",
    **dict.fromkeys(
        ("quantized_conv2d", "quantized_linear", "binary_conv2d", "binary_linear"),
        "lower the float network: the ring rounds by itself",
    ),
}
