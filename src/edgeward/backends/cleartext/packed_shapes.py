"""Shape rules of the packed runtime: what each operator makes of its inputs, with every attribute checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from edgeward.backends.cleartext.container import Malformed

MAX_ELEMENTS = 1 << 26
MAX_OPERATIONS = 1 << 36
MAX_FLOAT32 = 3.4028234663852886e38
Shape: TypeAlias = "tuple[int, ...]"


@final
@dataclass(frozen=True)
class Site:
    """One node as the rules see it: shapes are per record; `claimed` is what the file says of the output."""

    attributes: Mapping[str, Any]
    tensors: Mapping[str, Shape]
    inputs: Sequence[Shape]
    claimed: Shape

    def only(self) -> Shape:
        """Return the shape of the single input."""
        demand(len(self.inputs) == 1, "takes one input")
        return self.inputs[0]

    def image(self) -> tuple[int, int, int]:
        """Return the single input's channels, height and width."""
        shape = self.only()
        demand(len(shape) == 3, "takes [C, H, W]")
        return shape[0], shape[1], shape[2]

    def integer(self, name: str, low: int = 0, high: int = 1 << 24) -> int:
        """Return an integer attribute within bounds."""
        return whole(self.attributes.get(name), name, low, high)

    def integers(self, name: str, low: int = 0, high: int = 1 << 24) -> Shape:
        """Return a list-of-integers attribute within bounds."""
        found = self.attributes.get(name)
        demand(isinstance(found, list) and len(found) <= 6, f"attribute {name} is not a short list")
        return tuple(whole(n, name, low, high) for n in found or ())

    def pair(self, name: str, low: int = 0) -> tuple[int, int]:
        """Return an attribute of two integers."""
        found = self.integers(name, low)
        demand(len(found) == 2, f"attribute {name} is not a pair")
        return found[0], found[1]

    def number(self, name: str) -> float:
        """Return a finite number attribute."""
        found = self.attributes.get(name)
        demand(type(found) in (int, float) and abs(found or 0.0) <= MAX_FLOAT32, f"attribute {name} is not a number")
        return float(found or 0.0)

    def flag(self, name: str) -> bool:
        """Return a true-or-false attribute."""
        found = self.attributes.get(name)
        demand(isinstance(found, bool), f"attribute {name} is not true or false")
        return bool(found)

    def tensor(self, role: str, shape: Shape) -> None:
        """Check the shape of a tensor that is there."""
        demand(self.tensors.get(role, shape) == shape, f"tensor {role} is {self.tensors.get(role)}, not {shape}")


Rule: TypeAlias = "Callable[[Site], tuple[Shape, int]]"


def demand(holds: bool, otherwise: str) -> None:
    """Raise `Malformed` with the reason unless the condition holds."""
    if not holds:
        raise Malformed(otherwise)


def whole(found: Any, name: str, low: int, high: int) -> int:
    """Return an integer within bounds; booleans are none."""
    demand(type(found) is int and low <= found <= high, f"attribute {name} is not between {low} and {high}")
    return int(found)


def _quantized_scales(site: Site, outputs: int) -> None:
    bits = site.integer("activation_bits", 1, 32)
    demand(bits <= 16 or bits == 32, "activations have 1 to 16 or 32 bits")
    site.integer("weight_bits", 2, 8)
    demand(math.prod(site.tensors["weight_scale"]) == outputs, "there is one weight scale per output")
    for role in ("activation_scale", "activation_zero_point"):
        demand(math.prod(site.tensors[role]) == 1, f"{role} is one number")


def _dense(site: Site) -> tuple[Shape, int]:
    shape, weight = site.only(), site.tensors["weight"]
    demand(len(shape) >= 1 and len(weight) == 2 and weight[1] == shape[-1], f"weight {weight} meets input {shape}")
    for role in ("bias", "scale"):
        site.tensor(role, (weight[0],))
    if "weight_scale" in site.tensors:
        _quantized_scales(site, weight[0])
    if "unit_scale" in site.attributes:
        site.flag("unit_scale")
    return (*shape[:-1], weight[0]), math.prod(shape)


def window_extent(extent: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Return how many windows fit along one axis (torch's rule, also for ceil mode)."""
    span = dilation * (kernel - 1) + 1
    free = extent + 2 * padding - span
    demand(free >= 0, "the window is larger than the padded input")
    count = (free + (stride - 1 if ceil else 0)) // stride + 1
    # In ceil mode the last window has to start inside the input or its leading padding.
    return count - 1 if ceil and (count - 1) * stride >= extent + padding else count


def _conv(site: Site) -> tuple[Shape, int]:
    channels, *extents = site.image()
    weight, groups = site.tensors["weight"], site.integer("groups", 1)
    stride, padding, dilation = site.pair("stride", 1), site.pair("padding"), site.pair("dilation", 1)
    demand(len(weight) == 4 and weight[1] * groups == channels and weight[0] % groups == 0, "weight and groups differ")
    for role in ("bias", "scale"):
        site.tensor(role, (weight[0],))
    if "weight_scale" in site.tensors:
        _quantized_scales(site, weight[0])
    if "unit_scale" in site.attributes:
        site.flag("unit_scale")
    out = [window_extent(extents[i], weight[2 + i], stride[i], padding[i], dilation[i]) for i in (0, 1)]
    padded = channels * math.prod(extents[i] + 2 * padding[i] for i in (0, 1))
    patches = math.prod(out) * channels * weight[2] * weight[3]
    return (weight[0], *out), max(padded, patches)


def _pool(site: Site) -> tuple[Shape, int]:
    channels, *extents = site.image()
    kernel, stride, padding = site.pair("kernel", 1), site.pair("stride", 1), site.pair("padding")
    dilation = site.pair("dilation", 1) if "dilation" in site.attributes else (1, 1)
    ceil = site.flag("ceil")
    if "count_pad" in site.attributes:
        site.flag("count_pad")
    demand(all(2 * padding[i] <= kernel[i] for i in (0, 1)), "the padding is more than half the window")
    out = [window_extent(extents[i], kernel[i], stride[i], padding[i], dilation[i], ceil) for i in (0, 1)]
    reach = [
        max(extents[i] + 2 * padding[i], (out[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1) for i in (0, 1)
    ]
    demand(math.prod(kernel) <= 1 << 16 and channels * math.prod(out) * math.prod(kernel) <= 1 << 30, "too much work")
    return (channels, *out), channels * math.prod(reach)


def _adaptive(site: Site) -> tuple[Shape, int]:
    channels, height, width = site.image()
    out = site.pair("output", 1)
    demand(math.prod(out) <= 1 << 14, "the output is too large")
    return (channels, *out), channels * height * width


def _mean(site: Site) -> tuple[Shape, int]:
    shape, axes, keep = site.only(), site.integers("axes"), site.flag("keep")
    demand(bool(axes) and len(set(axes)) == len(axes) and max(axes) < len(shape), "the axes are not those of the input")
    kept = [1 if axis in axes else extent for axis, extent in enumerate(shape) if keep or axis not in axes]
    return tuple(kept), math.prod(shape)


def _same(site: Site) -> tuple[Shape, int]:
    return site.only(), 0


def _leaky_relu(site: Site) -> tuple[Shape, int]:
    site.number("slope")
    return site.only(), 0


def _clip(site: Site) -> tuple[Shape, int]:
    demand(site.number("low") <= site.number("high"), "low is above high")
    return site.only(), 0


def _gelu(site: Site) -> tuple[Shape, int]:
    demand(site.attributes.get("approximate") in ("none", "tanh"), "attribute approximate is 'none' or 'tanh'")
    return site.only(), 0


def _softmax(site: Site) -> tuple[Shape, int]:
    site.integer("axis", 0, len(site.only()) - 1)
    return site.only(), 0


def _affine(site: Site) -> tuple[Shape, int]:
    shape = site.only()
    demand(len(shape) >= 1, "takes at least one axis")
    for role in ("weight", "bias"):
        site.tensor(role, (shape[0],))
    return shape, 0


def _layer_norm(site: Site) -> tuple[Shape, int]:
    shape, over = site.only(), site.integers("shape", 1)
    demand(bool(over) and shape[len(shape) - len(over) :] == over and site.number("epsilon") > 0, "the axes differ")
    for role in ("weight", "bias"):
        site.tensor(role, over)
    return shape, 0


def _group_norm(site: Site) -> tuple[Shape, int]:
    shape, groups = site.only(), site.integer("groups", 1)
    demand(len(shape) >= 1 and shape[0] % groups == 0 and site.number("epsilon") > 0, "the groups do not divide")
    for role in ("weight", "bias"):
        site.tensor(role, (shape[0],))
    return shape, 0


def _broadcast(first: Shape, second: Shape) -> Shape:
    rank = max(len(first), len(second))
    pairs = zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    out = []
    for one, other in pairs:
        demand(one == other or 1 in (one, other), f"{first} and {second} do not broadcast")
        out.append(max(one, other))
    return tuple(out)


def _arithmetic(site: Site) -> tuple[Shape, int]:
    operands = len(site.inputs) + len(site.tensors) + len(site.attributes)
    demand(operands == 2 and len(site.inputs) >= 1, "takes two operands")
    if len(site.inputs) == 2:
        demand(len(site.inputs[0]) == len(site.inputs[1]), "the values have different ranks")
        return _broadcast(site.inputs[0], site.inputs[1]), 0
    if site.attributes:
        site.number("scalar")
        return site.inputs[0], 0
    constant = site.tensors["constant"]
    if len(constant) == len(site.inputs[0]) + 1:
        demand(constant[0] == 1, "the constant has a batch axis")
        constant = constant[1:]
    demand(len(constant) <= len(site.inputs[0]), "the constant has too many axes")
    return _broadcast(site.inputs[0], constant), 0


def _matmul(site: Site) -> tuple[Shape, int]:
    demand(len(site.inputs) == 2, "takes two inputs")
    left, right = site.inputs
    demand(len(left) == len(right) >= 2 and left[-1] == right[-2], f"{left} does not meet {right}")
    out = (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    demand(math.prod(out) * left[-1] <= MAX_OPERATIONS, "too much work")
    return out, 2 * (math.prod(left) + math.prod(right))


def _attention(site: Site) -> tuple[Shape, int]:
    demand(len(site.inputs) == 3, "takes query, key and value")
    query, key, value = site.inputs
    site.number("scale")
    demand(min(map(len, site.inputs)) >= 2 and query[:-2] == key[:-2] == value[:-2], "the leading axes differ")
    demand(query[-1] == key[-1] and key[-2] == value[-2], "query, key and value do not meet")
    demand(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]) <= MAX_OPERATIONS, "too much work")
    return (*query[:-1], value[-1]), 4 * math.prod(query[:-1]) * key[-2]


def _concat(site: Site) -> tuple[Shape, int]:
    demand(bool(site.inputs) and len(site.inputs[0]) > 0, "takes at least one input")
    first = site.inputs[0]
    axis = site.integer("axis", 0, len(first) - 1)
    alike = all(
        len(s) == len(first) and (*s[:axis], *s[axis + 1 :]) == (*first[:axis], *first[axis + 1 :]) for s in site.inputs
    )
    demand(alike, "the inputs differ beside the axis")
    return (*first[:axis], sum(shape[axis] for shape in site.inputs), *first[axis + 1 :]), 0


def _reshape(site: Site) -> tuple[Shape, int]:
    shape = site.integers("shape", 1)
    demand(math.prod(shape) == math.prod(site.only()), "the sizes differ")
    return shape, 0


def _permute(site: Site) -> tuple[Shape, int]:
    shape, axes = site.only(), site.integers("axes")
    demand(sorted(axes) == list(range(len(shape))), "the axes are no permutation")
    return tuple(shape[axis] for axis in axes), 0


def _slice(site: Site) -> tuple[Shape, int]:
    shape = site.only()
    axis = site.integer("axis", 0, len(shape) - 1)
    start, stop = site.integer("start", 0, shape[axis]), site.integer("stop", 0, shape[axis])
    length = len(range(start, stop, site.integer("step", 1)))
    demand(length > 0, "the slice is empty")
    return (*shape[:axis], length, *shape[axis + 1 :]), 0


def _select(site: Site) -> tuple[Shape, int]:
    shape = site.only()
    axis = site.integer("axis", 0, len(shape) - 1)
    site.integer("index", 0, shape[axis] - 1)
    return (*shape[:axis], *shape[axis + 1 :]), 0


def _pad(site: Site) -> tuple[Shape, int]:
    shape, padding = site.only(), site.attributes.get("padding")
    site.number("value")
    demand(isinstance(padding, list) and len(padding) == len(shape), "there is one pair of paddings per axis")
    out = []
    for extent, pair in zip(shape, padding or [], strict=True):
        demand(isinstance(pair, list) and len(pair) == 2, "a padding is not a pair")
        out.append(extent + sum(whole(n, "padding", 0, 1 << 24) for n in pair))
    return tuple(out), 0


def _constant(site: Site) -> tuple[Shape, int]:
    demand(not site.inputs and math.prod(site.tensors["value"]) == math.prod(site.claimed), "the sizes differ")
    return site.claimed, 0


SHAPES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv2d", "quantized_conv2d", "binary_conv2d"), _conv),
    **dict.fromkeys(("linear", "quantized_linear", "binary_linear"), _dense),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _pool),
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    **dict.fromkeys(("relu", "sigmoid", "tanh", "silu", "hard_sigmoid", "hard_swish", "identity"), _same),
    "affine": _affine,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "softmax": _softmax,
    "matmul": _matmul,
    "attention": _attention,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "concat": _concat,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "select": _select,
    "pad": _pad,
    "constant": _constant,
}
