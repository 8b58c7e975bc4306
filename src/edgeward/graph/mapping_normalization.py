"""Mapping rules: batch, layer and group normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from edgeward.graph.call import Call, NoPlace, Rule

aten = torch.ops.aten


def _batch_norm(call: Call) -> list[str]:
    value = call.value("input")
    mean, variance = call.stored("running_mean"), call.stored("running_var")
    tensors = {
        "weight": call.optional("weight") or call.keep(torch.ones_like(variance.tensor), "weight"),
        "bias": call.optional("bias") or call.keep(torch.zeros_like(mean.tensor), "bias"),
        "mean": mean,
        "variance": variance,
    }
    settings = {"epsilon": float(call.arguments["eps"])}
    # The ATen operator has three results; only the first is a value at inference.
    return [call.emit("batch_norm", (value,), settings, tensors=tensors)]


def _layer_norm(call: Call) -> str:
    settings = {
        "epsilon": float(call.get("eps", 1e-5)),
        "shape": tuple(int(extent) for extent in call.arguments["normalized_shape"]),
    }
    tensors = {"weight": call.optional("weight"), "bias": call.optional("bias")}
    return call.emit("layer_norm", (call.value("input"),), settings, tensors=tensors)


def _group_norm(call: Call) -> str:
    settings = {"epsilon": float(call.get("eps", 1e-5)), "groups": int(call.arguments["num_groups"])}
    tensors = {"weight": call.optional("weight"), "bias": call.optional("bias")}
    return call.emit("group_norm", (call.value("input"),), settings, tensors=tensors)


def _batch_statistics(call: Call) -> list[str]:
    raise NoPlace("set track_running_stats=True: statistics of the query batch make answers depend on each other")


NORMALIZATION: Mapping[Any, Rule] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten._native_batch_norm_legit.no_stats: _batch_statistics,
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
}
