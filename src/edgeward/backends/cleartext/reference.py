"""`ReferenceExecutable`: a network interpreted with torch, one function per operator; the oracle of all backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError
from edgeward.graph import quantized
from edgeward.graph.network import Network, Node

Held: TypeAlias = Mapping[str, Tensor]
Step: TypeAlias = "Callable[[Mapping[str, Any], Held, list[Tensor]], Tensor]"


def _conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.conv2d(x[0], held["weight"], held.get("bias"), a["stride"], a["padding"], a["dilation"], a["groups"])


def _quantized_conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.conv2d(
        _rounded_input(a, held, x[0]),
        quantized.fake_quantize_weight(held["weight"], held["weight_scale"], a["weight_bits"]),
        held.get("bias"),
        a["stride"],
        a["padding"],
        a["dilation"],
        a["groups"],
    )


def _quantized_linear(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    weight = quantized.fake_quantize_weight(held["weight"], held["weight_scale"], a["weight_bits"])
    return F.linear(_rounded_input(a, held, x[0]), weight, held.get("bias"))


def _rounded_input(a: Mapping[str, Any], held: Held, x: Tensor) -> Tensor:
    scale, zero_point = held["activation_scale"], held["activation_zero_point"]
    return quantized.fake_quantize_activation(x, scale, zero_point, a["activation_bits"])


def _binary_conv2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    vertical, horizontal = a["padding"]
    padded = F.pad(quantized.signs(x[0]), (horizontal, horizontal, vertical, vertical), value=-1.0)
    weight = quantized.signs(held["weight"])
    y = F.conv2d(padded, weight, None, a["stride"], 0, a["dilation"], a["groups"]) * held["scale"].view(-1, 1, 1)
    return y + held["bias"].view(-1, 1, 1) if "bias" in held else y


def _binary_linear(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    y = F.linear(quantized.signs(x[0]), quantized.signs(held["weight"])) * held["scale"]
    return y + held["bias"] if "bias" in held else y


def _attention(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    query, key, value = x
    return torch.softmax(query @ key.transpose(-2, -1) * a["scale"], dim=-1) @ value


def _batch_norm(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.batch_norm(
        x[0], held["mean"], held["variance"], held["weight"], held["bias"], training=False, eps=a["epsilon"]
    )


def _arithmetic(function: Callable[[Tensor, Tensor | float], Tensor]) -> Step:
    def step(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
        if len(x) == 2:
            return function(x[0], x[1])
        return function(x[0], held["constant"] if "constant" in held else a["scalar"])

    return step


def _plain(function: Callable[[Tensor], Tensor]) -> Step:
    return lambda a, held, x: function(x[0])


def _max_pool2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.max_pool2d(x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"])


def _avg_pool2d(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.avg_pool2d(x[0], a["kernel"], a["stride"], a["padding"], a["ceil"], a["count_pad"])


def _mean(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return x[0].mean([axis + 1 for axis in a["axes"]], keepdim=a["keep"])


def _permute(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return x[0].permute(0, *(axis + 1 for axis in a["axes"]))


def _slice(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    index = torch.arange(a["start"], a["stop"], a["step"])
    return x[0].index_select(a["axis"] + 1, index)


def _pad(a: Mapping[str, Any], held: Held, x: list[Tensor]) -> Tensor:
    return F.pad(x[0], [extent for pair in reversed(a["padding"]) for extent in pair], value=a["value"])


STEPS: Mapping[str, Step] = {
    "conv2d": _conv2d,
    "linear": lambda a, held, x: F.linear(x[0], held["weight"], held.get("bias")),
    "matmul": lambda a, held, x: x[0] @ x[1],
    "attention": _attention,
    "quantized_conv2d": _quantized_conv2d,
    "quantized_linear": _quantized_linear,
    "binary_conv2d": _binary_conv2d,
    "binary_linear": _binary_linear,
    "batch_norm": _batch_norm,
    "layer_norm": lambda a, h, x: F.layer_norm(x[0], a["shape"], h.get("weight"), h.get("bias"), a["epsilon"]),
    "group_norm": lambda a, h, x: F.group_norm(x[0], a["groups"], h.get("weight"), h.get("bias"), a["epsilon"]),
    "relu": _plain(F.relu),
    "clip": lambda a, held, x: x[0].clamp(a["low"], a["high"]),
    "leaky_relu": lambda a, held, x: F.leaky_relu(x[0], a["slope"]),
    "sigmoid": _plain(torch.sigmoid),
    "tanh": _plain(torch.tanh),
    "silu": _plain(F.silu),
    "gelu": lambda a, held, x: F.gelu(x[0], approximate=a["approximate"]),
    "hard_sigmoid": _plain(F.hardsigmoid),
    "hard_swish": _plain(F.hardswish),
    "softmax": lambda a, held, x: torch.softmax(x[0], dim=a["axis"] + 1),
    "add": _arithmetic(torch.add),
    "sub": _arithmetic(torch.sub),
    "mul": _arithmetic(torch.mul),
    "div": _arithmetic(torch.div),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda a, held, x: F.adaptive_avg_pool2d(x[0], a["output"]),
    "mean": _mean,
    "concat": lambda a, held, x: torch.cat(x, dim=a["axis"] + 1),
    "reshape": lambda a, held, x: x[0].reshape(x[0].shape[0], *a["shape"]),
    "permute": _permute,
    "slice": _slice,
    "select": lambda a, held, x: x[0].select(a["axis"] + 1, a["index"]),
    "pad": _pad,
    "identity": lambda a, held, x: x[0],
}


@final
class ReferenceExecutable(Executable):
    """A network run node by node with torch on the CPU.

    Guarantee: equals the captured module in eval mode within float rounding (measured on the operator table and the
    zoo, 1e-5). Cost: one pass over the nodes; a value is dropped after its last reader.
    """

    runtime: ClassVar[str] = "torch-reference"

    def __init__(self, network: Network) -> None:
        """Prepare `network`; nothing is computed yet."""
        self._network = network
        self._last_reader = {value: node.name for node in network.nodes for value in node.inputs}

    @property
    def network(self) -> Network:
        """The network this runs."""
        return self._network

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Return the last output for float32 `records` [n, ...input shape] as float32.

        Raises: `DataError` when the shape of a record is not that of the network's input.
        """
        return self.run_all(records)[-1]

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit) for `records`."""
        expected = self._network.input_shape()
        if tuple(records.shape[1:]) != expected:
            raise DataError(
                "the records do not fit the network",
                expected=f"float32 [n, {', '.join(map(str, expected))}]",
                came=f"{records.dtype} {list(records.shape)}",
                fix="give a batch of records of the shape the network was captured with",
            )
        with torch.no_grad():
            outputs = self._interpret(torch.from_numpy(np.ascontiguousarray(records, dtype=np.float32)))
        return tuple(value.to(torch.float32).numpy() for value in outputs)

    def _interpret(self, records: Tensor) -> list[Tensor]:
        values = {self._network.inputs[0]: records}
        for node in self._network.nodes:
            values[node.output] = self._apply(node, values, len(records))
            for spent in set(node.inputs) - set(self._network.outputs):
                if self._last_reader[spent] == node.name:
                    del values[spent]
        return [values[name] for name in self._network.outputs]

    def _apply(self, node: Node, values: Mapping[str, Tensor], count: int) -> Tensor:
        held = {role: self._network.tensors[key] for role, key in node.tensors.items()}
        if node.operator == "constant":
            shape = self._network.values[node.output].shape
            return held["value"].reshape(1, *shape).expand(count, *shape)
        return STEPS[node.operator](node.attributes, held, [values[name] for name in node.inputs])
