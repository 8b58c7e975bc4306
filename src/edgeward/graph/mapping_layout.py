"""Mapping rules: shapes, axes, parts and padding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from edgeward.graph.call import BATCH_FIRST, Call, NoPlace, Rule

aten = torch.ops.aten


def _reshape(call: Call) -> str:
    # With the batch first on both sides, a row-major reshape of the batch is the same reshape of every record.
    value, shape = call.value("self"), call.result_shape()
    return value if call.shape(value) == shape else call.emit("reshape", (value,), {"shape": shape})


def _permute(call: Call) -> str:
    order = [axis % len(call.arguments["dims"]) for axis in call.arguments["dims"]]
    return _reorder(call, order)


def _transpose(call: Call) -> str:
    rank = call.node.meta["val"].dim()
    first, second = call.arguments["dim0"] % rank, call.arguments["dim1"] % rank
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return _reorder(call, order)


def _reorder(call: Call, order: list[int]) -> str:
    """Reorder the axes of each record, and note where the traced tensor has its batch now."""
    source = call.arguments["self"]
    value, batch = call.named(source), call.draft.batch_axis(source)
    call.draft.moved[call.node] = order.index(batch)
    axes = tuple(axis - (axis > batch) for axis in order if axis != batch)
    return value if axes == tuple(range(len(axes))) else call.emit("permute", (value,), {"axes": axes})


def _expand(call: Call) -> str:
    value = call.value("self")
    if call.shape(value) != call.result_shape():
        raise NoPlace("let arithmetic broadcast instead of expanding")
    return value


def _concat(call: Call) -> str:
    parts = [call.value_of(part) for part in call.arguments["tensors"]]
    rank = len(call.shape(parts[0])) + 1
    return call.emit("concat", parts, {"axis": call.axis_of(call.get("dim", 0), rank)})


def _stack(call: Call) -> str:
    parts = [call.value_of(part) for part in call.arguments["tensors"]]
    axis = call.axis_of(call.get("dim", 0), len(call.shape(parts[0])) + 2)
    thin = [*call.shape(parts[0])[:axis], 1, *call.shape(parts[0])[axis:]]
    shaped = [call.emit("reshape", (part,), {"shape": tuple(thin)}, shape=tuple(thin)) for part in parts]
    return call.emit("concat", shaped, {"axis": axis})


def _slice(call: Call) -> str:
    value = call.value("self")
    rank, given = len(call.shape(value)) + 1, call.get("dim", 0)
    start, stop, step = call.get("start", 0), call.get("end", 2**63 - 1), int(call.get("step", 1))
    if given % rank == 0 and start == 0 and step == 1 and isinstance(stop, int) and stop >= 2**63 - 1:
        return value
    axis = call.axis_of(given, rank)
    extent = call.shape(value)[axis]
    first, last, _ = slice(start, stop, step).indices(extent)
    return value if (first, last, step) == (0, extent, 1) else _part(call, value, axis, (first, last, step))


def _part(call: Call, value: str, axis: int, bounds: tuple[int, int, int]) -> str:
    shape = list(call.shape(value))
    shape[axis] = len(range(*bounds))
    settings = {"axis": axis, "start": bounds[0], "stop": bounds[1], "step": bounds[2]}
    return call.emit("slice", (value,), settings, shape=tuple(shape))


def _split(call: Call) -> list[str]:
    value = call.value("self")
    axis = call.axis_of(call.get("dim", 0), len(call.shape(value)) + 1)
    extent = call.shape(value)[axis]
    sizes = call.arguments.get("split_size", call.arguments.get("split_sizes"))
    if "chunks" in call.arguments:
        sizes = -(-extent // int(call.arguments["chunks"]))
    ends = [*range(sizes, extent, sizes), extent] if isinstance(sizes, int) else list(accumulate(sizes))
    return [_part(call, value, axis, (a, b, 1)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _taken_axis(call: Call) -> tuple[str, int]:
    """Return value and record axis of an operator that removes one axis; the batch may stand anywhere else."""
    source = call.arguments["self"]
    value, batch = call.named(source), call.draft.batch_axis(source)
    axis = call.get("dim", 0) % (len(call.shape(value)) + 1)
    if axis == batch:
        raise NoPlace(BATCH_FIRST)
    call.draft.moved[call.node] = batch - (axis < batch)
    return value, axis - (axis > batch)


def _select(call: Call) -> str:
    value, axis = _taken_axis(call)
    return _one(call, value, axis, call.arguments["index"] % call.shape(value)[axis])


def _one(call: Call, value: str, axis: int, index: int) -> str:
    shape = call.shape(value)
    return call.emit("select", (value,), {"axis": axis, "index": index}, shape=(*shape[:axis], *shape[axis + 1 :]))


def _unbind(call: Call) -> list[str]:
    value, axis = _taken_axis(call)
    return [_one(call, value, axis, index) for index in range(call.shape(value)[axis])]


def _pad(call: Call) -> str:
    if call.get("mode", "constant") != "constant":
        raise NoPlace("pad with a constant")
    value, flat = call.value("self"), list(call.arguments["pad"])
    rank = len(call.shape(value))
    # torch lists (before, after) from the last axis backwards.
    pairs = [(int(flat[i]), int(flat[i + 1])) for i in range(0, len(flat), 2)][::-1]
    if len(pairs) > rank:
        raise NoPlace(BATCH_FIRST)
    padding = tuple([(0, 0)] * (rank - len(pairs)) + pairs)
    if any(extent < 0 for before_after in padding for extent in before_after):
        raise NoPlace("cut with a slice instead of negative padding")
    return call.emit("pad", (value,), {"padding": padding, "value": float(call.get("value", 0.0))})


LAYOUT: Mapping[Any, Rule] = {
    **dict.fromkeys(
        (
            aten.view.default,
            aten._unsafe_view.default,
            aten.reshape.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.unsqueeze.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        _reshape,
    ),
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), _split),
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.expand.default: _expand,
    aten.cat.default: _concat,
    aten.stack.default: _stack,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
}
