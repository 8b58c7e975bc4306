"""What the secure benchmarks compute, in a form that ours and every peer can read: layers, arrays, who owns what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from edgeward.core.errors import UnsupportedOperators
from edgeward.graph import fold_batch_norm, remove_identities
from edgeward.graph.network import Network, Node

FRACTION = 16
"""Fraction bits, the same in all systems (ring of 64 bits)."""

_FORMS = ("conv2d", "linear", "relu", "add", "max_pool2d", "adaptive_avg_pool2d", "reshape", "slice", "pad")


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A computation on secret inputs: party 0 owns the records, party 1 everything else.

    `layers` are plain dictionaries (operator, inputs, output, attributes, names of arrays), `right` is the answer in
    float64.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    layers: tuple[Mapping[str, Any], ...]
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    owners: Mapping[str, int] = field(repr=False)
    right: np.ndarray = field(repr=False)
    repeats: int = 3

    def write(self, folder: Path) -> None:
        """Write `task.json` and `arrays.npz` for a peer's program."""
        document = {
            "inputs": self.inputs,
            "output": self.output,
            "layers": self.layers,
            "owners": self.owners,
            "repeats": self.repeats,
            "fraction": FRACTION,
        }
        (folder / "task.json").write_text(json.dumps(document), encoding="utf-8")
        np.savez(folder / "arrays.npz", **self.arrays)

    def error(self, answer: np.ndarray) -> float:
        """Return the largest distance of `answer` from the right one."""
        return float(np.abs(answer.reshape(self.right.shape) - self.right).max())

    def with_repeats(self, repeats: int) -> Task:
        """Return the same task, timed `repeats` times."""
        return replace(self, repeats=repeats)


def relu_task(elements: int) -> Task:
    """Return max(x, 0) of normally distributed numbers that the fixed-point format holds exactly."""
    x = np.rint(np.random.default_rng(0).normal(size=elements) * 2**FRACTION) / 2**FRACTION
    layer = {"operator": "relu", "inputs": ["x"], "output": "y"}
    arrays = {"x": x.astype(np.float32)}
    return Task(f"relu {elements}", ("x",), "y", (layer,), arrays, {"x": 0}, np.maximum(arrays["x"], 0.0))


def matmul_task(side: int) -> Task:
    """Return the product of two normally distributed matrices, one of each party."""
    draws = np.random.default_rng(0)
    arrays = {name: draws.normal(size=(side, side)).astype(np.float32) for name in ("x", "y")}
    layer = {"operator": "matmul", "inputs": ["x", "y"], "output": "z"}
    right = arrays["x"].astype(np.float64) @ arrays["y"].astype(np.float64)
    return Task(f"matmul {side}^3", ("x", "y"), "z", (layer,), arrays, {"x": 0, "y": 1}, right)


def network_task(name: str, network: Network, module: torch.nn.Module, records: np.ndarray) -> Task:
    """Return a network on `records`, batch norms folded. Raises: `UnsupportedOperators` for what no peer has here."""
    network = fold_batch_norm(remove_identities(network))
    missing = [
        (node.layer, node.operator, "no peer has it here") for node in network.nodes if node.operator not in _FORMS
    ]
    if missing:
        raise UnsupportedOperators(missing, expected=", ".join(_FORMS))
    source = network.inputs[0]
    arrays, owners = {source: records.astype(np.float32)}, {source: 0}
    for node in network.nodes:
        for key in node.tensors.values():
            arrays[key], owners[key] = network.tensors[key].numpy().astype(np.float32), 1
    layers = tuple(_layer(node) for node in network.nodes)
    with torch.no_grad():
        right = module.double()(torch.from_numpy(records).double()).numpy()
    module.float()
    return Task(name, (source,), network.outputs[0], layers, arrays, owners, right)


def _layer(node: Node) -> dict[str, Any]:
    attributes = dict(node.attributes)
    if "output" in attributes:
        attributes["target"] = attributes.pop("output")
    return {"operator": node.operator, "inputs": list(node.inputs), "output": node.output, **attributes, **node.tensors}
