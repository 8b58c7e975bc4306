"""Mapping rules: pooling and means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from edgeward.graph.call import BATCH_FIRST, Call, NoPlace, Rule
from edgeward.graph.mapping_linear import pair

aten = torch.ops.aten


def _pool(call: Call) -> dict[str, Any]:
    kernel = pair(call.arguments["kernel_size"])
    return {
        "kernel": kernel,
        "stride": pair(call.get("stride") or kernel),
        "padding": pair(call.get("padding", 0)),
        "ceil": bool(call.get("ceil_mode", False)),
    }


def _max_pool2d(call: Call) -> str:
    settings = {**_pool(call), "dilation": pair(call.get("dilation", 1))}
    return call.emit("max_pool2d", (call.image("self"),), settings)


def _avg_pool2d(call: Call) -> str:
    if call.get("divisor_override") is not None:
        raise NoPlace("leave divisor_override out and scale the result")
    settings = {**_pool(call), "count_pad": bool(call.get("count_include_pad", True))}
    return call.emit("avg_pool2d", (call.image("self"),), settings)


def _adaptive_avg_pool2d(call: Call) -> str:
    return call.emit("adaptive_avg_pool2d", (call.image("self"),), {"output": call.result_shape()[-2:]})


def _mean(call: Call) -> str:
    value = call.value("self")
    rank = len(call.shape(value)) + 1
    given = call.arguments.get("dim")
    if not given and given != 0:
        raise NoPlace(BATCH_FIRST)
    axes = tuple(sorted(call.axis_of(axis, rank) for axis in ([given] if isinstance(given, int) else given)))
    return call.emit("mean", (value,), {"axes": axes, "keep": bool(call.get("keepdim", False))})


def _sum(call: Call) -> str:
    mean = _mean(call)
    axes = call.draft.nodes[-1].attributes["axes"]
    extents = call.shape(call.draft.nodes[-1].inputs[0])
    count = 1
    for axis in axes:
        count *= extents[axis]
    return call.emit("mul", (mean,), {"scalar": float(count)})


POOLING: Mapping[Any, Rule] = {
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _sum,
}
