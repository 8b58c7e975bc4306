"""How each operator of a network becomes a step, and which ones have no protocol yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from edgeward.backends.mpc.inference.draft import Draft
from edgeward.backends.mpc.inference.step import Secret
from edgeward.backends.mpc.inference.steps_linear import Gain, LinearStep, bias_name
from edgeward.backends.mpc.inference.steps_local import (
    AveragePoolStep,
    MeanStep,
    MoveStep,
    PublicGainStep,
    PublicShiftStep,
    SecretShiftStep,
    SumStep,
)
from edgeward.backends.mpc.inference.steps_nonlinear import ClipStep, MaxPoolStep, ProductStep, ReluStep
from edgeward.backends.mpc.protocols.linear import Use
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense, LinearMap
from edgeward.backends.mpc.protocols.pooling import Window
from edgeward.core.errors import UnsupportedOperators
from edgeward.graph.network import Network, Node

Rule: TypeAlias = "Callable[[Draft, Node], None]"
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
    if node.operator in ("max_pool2d", "avg_pool2d"):
        whole = _window(node).output_shape((1, *inputs[0])) == (1, *network.values[node.output].shape)
        if not whole:
            return "use ceil_mode=False"
        if tuple(a.get("dilation", (1, 1))) != (1, 1):
            return "use dilation=1"
        if any(a["padding"]) and not a.get("count_pad", True):
            return "use count_include_pad=True or padding=0"
    if node.operator == "adaptive_avg_pool2d" and any(i % o for i, o in zip(inputs[0][1:], a["output"], strict=True)):
        return "choose an output size that divides the input's"
    if node.operator == "clip" and max(abs(a["low"]), abs(a["high"])) >= _LARGEST_BOUND:
        return "give both bounds, below 2^14 in size, or use relu"
    if node.operator == "pad" and a["value"] != 0:
        return "pad with zeros"
    if node.operator == "mul" and len(inputs) == 2 and inputs[0] != inputs[1]:
        return "multiply values of one shape"
    if node.operator == "div" and (len(inputs) == 2 or a.get("scalar") == 0):
        return "divide by a constant other than 0"
    if node.operator in ("mul", "div") and inputs[0] != network.values[node.output].shape:
        return "give the value the shape of the product first"
    return ""


def _linear(draft: Draft, node: Node) -> None:
    """Lower a conv2d or linear together with the others of its kind that read the same value."""
    value, f = node.inputs[0], draft.ring.fraction
    nodes = [other for other in draft.network.consumers(value) if other.operator == node.operator]
    source, shape = draft.read_plain(value, node), draft.shape(value)
    input_ = shape if node.operator == "conv2d" else (math.prod(shape[:-1]), shape[-1])
    uses = tuple(_use(draft, other, _map(other), "weight") for other in nodes)
    biased = tuple(_bias(draft, other, use) for other, use in zip(nodes, uses, strict=True))
    shapes = tuple(draft.shape(other.output) for other in nodes)
    settings = {"input": input_, "uses": uses, "biased": biased, "shapes": shapes, "weight_fraction": f}
    draft.emit_all(LinearStep, nodes, (source,), draft.fraction[source] + f, **settings)


def _map(node: Node) -> LinearMap:
    a = node.attributes
    if node.operator == "linear":
        return Dense()
    stride, padding, dilation = (_pair(a[name]) for name in ("stride", "padding", "dilation"))
    return Convolution(stride, padding, dilation, int(a["groups"]))


def _use(draft: Draft, node: Node, map_: LinearMap, role: str) -> Use:
    weights = draft.tensor(node, role)
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
    draft.emit(LinearStep, node, (source,), draft.fraction[source] + f, **settings, weight_fraction=f)


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
        draft.emit(ProductStep, node, sources, fraction, count=draft.count(node.output))
    elif "scalar" in node.attributes:
        source, number = draft.read_plain(node.inputs[0], node), float(node.attributes["scalar"])
        number = 1 / number if node.operator == "div" else number
        draft.emit(PublicGainStep, node, (source,), draft.fraction[source] + draft.ring.fraction, number=number)
    else:
        tensor = draft.tensor(node, "constant")
        _gain(draft, node, 1 / tensor if node.operator == "div" else tensor, None)


def _relu(draft: Draft, node: Node) -> None:
    source, f = draft.read(node.inputs[0]), draft.ring.fraction
    settings = {"count": draft.count(node.output), "shift": draft.fraction[source] - f, "layout": draft.layout}
    draft.emit(ReluStep, node, (source,), f, **settings)


def _clip(draft: Draft, node: Node) -> None:
    source, f, a = draft.read(node.inputs[0]), draft.ring.fraction, node.attributes
    settings = {"count": draft.count(node.output), "shift": draft.fraction[source] - f, "layout": draft.layout}
    draft.emit(ClipStep, node, (source,), f, **settings, low=float(a["low"]), high=float(a["high"]))


def _max_pool(draft: Draft, node: Node) -> None:
    source, shape = draft.read_plain(node.inputs[0], node), draft.shape(node.inputs[0])
    draft.emit(
        MaxPoolStep, node, (source,), draft.ring.fraction, input=shape, window=_window(node), layout=draft.layout
    )


def _average_pool(draft: Draft, node: Node) -> None:
    source, f = draft.read_plain(node.inputs[0], node), draft.ring.fraction
    if node.operator == "adaptive_avg_pool2d":
        height, width = draft.shape(node.inputs[0])[2:]
        sides = (height // node.attributes["output"][0], width // node.attributes["output"][1])
        window = Window(sides, sides)
    else:
        window = _window(node)
    draft.emit(AveragePoolStep, node, (source,), draft.fraction[source] + f, window=window)


def _mean(draft: Draft, node: Node) -> None:
    source, axes = draft.read_plain(node.inputs[0], node), tuple(axis + 1 for axis in node.attributes["axes"])
    fraction = draft.fraction[source] + draft.ring.fraction
    draft.emit(MeanStep, node, (source,), fraction, axes=axes, shape=draft.shape(node.output))


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


def _window(node: Node) -> Window:
    a = node.attributes
    return Window(_pair(a["kernel"]), _pair(a["stride"]), _pair(a["padding"]))


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
}
"""How every operator with a protocol is lowered."""

_FIXES: Mapping[str, str] = {
    "leaky_relu": "use relu",
    **dict.fromkeys(("gelu", "silu", "hard_swish", "sigmoid", "tanh", "hard_sigmoid"), "use relu, and train again"),
    "softmax": "return the logits: softmax does not change which class is largest",
    "attention": "no protocol yet; use a convolutional network",
    "matmul": "no protocol yet for products of two activations' matrices",
    **dict.fromkeys(("layer_norm", "group_norm"), "use nn.BatchNorm2d, which costs nothing after a convolution"),
    "constant": "add it as a buffer, so that it is a constant of a sum",
    **dict.fromkeys(
        ("quantized_conv2d", "quantized_linear", "binary_conv2d", "binary_linear"),
        "lower the float network: the ring rounds by itself",
    ),
}
