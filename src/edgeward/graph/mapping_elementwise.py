"""Mapping rules: activations and arithmetic, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from edgeward.graph.call import BATCH_FIRST, Call, NoPlace, Rule

aten = torch.ops.aten
LARGEST = torch.finfo(torch.float32).max


def _plain(operator: str, call: Call) -> str:
    return call.emit(operator, (call.value("self"),))


def _same(call: Call) -> str:
    """An operator without effect at inference: its result is its input."""
    source = call.arguments["input" if "input" in call.arguments else "self"]
    call.draft.moved[call.node] = call.draft.batch_axis(source)
    return call.named(source)


def _dropout(call: Call) -> str:
    if call.get("train", False):
        raise NoPlace("call dropout with training=self.training, so that it is off in eval mode")
    return call.value("input")


def _cast(call: Call) -> str:
    if call.node.meta["val"].dtype != torch.float32:
        raise NoPlace("keep activations in float32")
    return call.value("self")


def _clip(call: Call) -> str:
    low, high = call.get("min", call.get("min_val")), call.get("max", call.get("max_val"))
    if low == 0 and high is None:
        return call.emit("relu", (call.value("self"),))
    bounds = {"low": -LARGEST if low is None else float(low), "high": LARGEST if high is None else float(high)}
    return call.emit("clip", (call.value("self"),), bounds)


def _leaky_relu(call: Call) -> str:
    return call.emit("leaky_relu", (call.value("self"),), {"slope": float(call.get("negative_slope", 0.01))})


def _gelu(call: Call) -> str:
    return call.emit("gelu", (call.value("self"),), {"approximate": str(call.get("approximate", "none"))})


def _softmax(call: Call) -> str:
    value = call.value("self")
    return call.emit("softmax", (value,), {"axis": call.axis("dim", len(call.shape(value)) + 1)})


def _arithmetic(operator: str, call: Call) -> str:
    """Two values, or a value with a scalar or a stored tensor, in the order of the arguments."""
    other = call.arguments["other"]
    if float(call.get("alpha", 1)) != 1.0:
        raise NoPlace("multiply first: alpha is not carried by the graph")
    if isinstance(other, bool | int | float):
        return call.emit(operator, (call.value("self"),), {"scalar": float(other)})
    if call.is_stored("other"):
        return _with_stored(operator, call, call.value("self"), "other")
    if call.is_stored("self") and operator in ("add", "mul"):
        return _with_stored(operator, call, call.value("other"), "self")
    if call.is_stored("self") and operator == "sub":
        value = call.value("other")
        negative = call.emit("mul", (value,), {"scalar": -1.0}, shape=call.shape(value))
        return _with_stored("add", call, negative, "self")
    values = (call.value("self"), call.value("other"))
    if len(call.shape(values[0])) != len(call.shape(values[1])):
        raise NoPlace(BATCH_FIRST)
    return call.emit(operator, values)


def _with_stored(operator: str, call: Call, value: str, stored_name: str) -> str:
    stored = call.stored(stored_name)
    if stored.tensor.dtype != torch.float32:
        stored = call.derive(stored.tensor.float(), "constant")
    rank = len(call.shape(value)) + 1
    if stored.tensor.dim() > rank or (stored.tensor.dim() == rank and stored.tensor.shape[0] != 1):
        raise NoPlace(BATCH_FIRST)
    return call.emit(operator, (value,), tensors={"constant": stored})


def _reversed_sub(call: Call) -> str:
    other = call.arguments["other"]
    if not isinstance(other, int | float):
        raise NoPlace("write the difference as a - b")
    negative = call.emit("mul", (call.value("self"),), {"scalar": -float(call.get("alpha", 1))})
    return call.emit("add", (negative,), {"scalar": float(other)})


def _negative(call: Call) -> str:
    return call.emit("mul", (call.value("self"),), {"scalar": -1.0})


def _reciprocal_free_power(call: Call) -> str:
    exponent = call.arguments["exponent"]
    if exponent not in (2, 3):
        raise NoPlace("use powers 2 or 3, or write a polynomial with products")
    value = call.value("self")
    product = value
    for _ in range(int(exponent) - 1):
        product = call.emit("mul", (product, value))
    return product


def _square(call: Call) -> str:
    value = call.value("self")
    return call.emit("mul", (value, value))


def _rules(operator: str, rule: Callable[[str, Call], str], *targets: Any) -> dict[Any, Rule]:
    return {target: partial(rule, operator) for target in targets}


ELEMENTWISE: Mapping[Any, Rule] = {
    **_rules("relu", _plain, aten.relu.default),
    **_rules("sigmoid", _plain, aten.sigmoid.default),
    **_rules("tanh", _plain, aten.tanh.default),
    **_rules("silu", _plain, aten.silu.default),
    **_rules("hard_sigmoid", _plain, aten.hardsigmoid.default),
    **_rules("hard_swish", _plain, aten.hardswish.default),
    **_rules("add", _arithmetic, aten.add.Tensor, aten.add.Scalar),
    **_rules("sub", _arithmetic, aten.sub.Tensor, aten.sub.Scalar),
    **_rules("mul", _arithmetic, aten.mul.Tensor, aten.mul.Scalar),
    **_rules("div", _arithmetic, aten.div.Tensor, aten.div.Scalar),
    aten.rsub.Scalar: _reversed_sub,
    aten.neg.default: _negative,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _reciprocal_free_power,
    aten.hardtanh.default: _clip,
    aten.relu6.default: lambda call: call.emit("clip", (call.value("self"),), {"low": 0.0, "high": 6.0}),
    aten.clamp.default: _clip,
    aten.clamp_min.default: _clip,
    aten.clamp_max.default: _clip,
    aten.leaky_relu.default: _leaky_relu,
    aten.gelu.default: _gelu,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten.clone.default: _same,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.contiguous.default: _same,
    aten.lift_fresh_copy.default: _same,
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten._to_copy.default: _cast,
    aten.to.dtype: _cast,
}
