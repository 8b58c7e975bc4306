"""Lower a network to the packed format: one bit per binary weight, k bits per k-bit weight, one file.

The file is a safetensors container whose metadata holds `format`, `version` and `graph`: canonical JSON with the nodes
in order. Values are numbered (0 is the input, node i writes value i + 1); tensors are named t0, t1, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from edgeward.backends.cleartext.bitpack import pack_codes, weight_codes
from edgeward.backends.cleartext.container import canonical_json, write_container
from edgeward.core.errors import ModelError
from edgeward.graph.fold_scale import fold_binary_scales
from edgeward.graph.network import Network, Node

FORMAT, VERSION = "edgeward-packed", "1"
BINARY = ("binary_conv2d", "binary_linear")
QUANTIZED = ("quantized_conv2d", "quantized_linear")


def to_packed(network: Network) -> bytes:
    """Return the packed file of `network`; the same network always gives the same bytes.

    Scales of binary layers move into the layers behind them where that is exact up to float rounding
    (`graph.fold.fold_binary_scales`); elsewhere they are stored. Batch normalisation is stored as a factor and an
    offset per channel. Guarantee: `PackedExecutable` equals the reference interpreter within float rounding (measured
    on the operator table), except where rounding moves a value across a rounding step of a quantised layer.
    Cost: ceil(n k / 8) bytes for n weights of k bits, 4 bytes for any other number, and the graph.

    Raises: `ModelError` with every layer that has no place, or for non-finite tensors.
    """
    network.finite()
    reasons = reasons_against(network)
    if reasons:
        raise ModelError(
            f"the network has no packed form for {len(reasons)} reason{'s' if len(reasons) > 1 else ''}:\n    "
            + "\n    ".join(reasons),
            fix="use a binary layer for 1 bit, a float layer for more than 8 bits; calibrate the scales",
        )
    draft = _Draft(fold_binary_scales(network))
    plain = draft.graph()
    return write_container(draft.stored, {"format": FORMAT, "version": VERSION, "graph": canonical_json(plain)})


def reasons_against(network: Network) -> list[str]:
    """Return every reason why `network` has no packed form, or an empty list."""
    reasons = [] if len(network.inputs) == 1 else [f"{len(network.inputs)} inputs, the packed format has one"]
    for node in network.nodes:
        if node.operator not in QUANTIZED:
            continue
        weight_bits, activation_bits = (int(node.attributes[name]) for name in ("weight_bits", "activation_bits"))
        if not 2 <= weight_bits <= 8:
            reasons.append(f"{node.name}: weights of {weight_bits} bits, 2 to 8 are stored as codes")
        if not (1 <= activation_bits <= 16 or activation_bits == 32):
            reasons.append(f"{node.name}: activations of {activation_bits} bits, 1 to 16 or 32 are run")
        scales = ["weight_scale"] + ["activation_scale"] * (activation_bits != 32)
        reasons += [
            f"{node.name}: {s} is not positive" for s in scales if not bool((network.tensor(node, s) > 0).all())
        ]
    return reasons


@final
@dataclass
class _Draft:
    """The file under construction: arrays by name, and which are stored already (shared weights are stored once)."""

    network: Network
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    known: dict[tuple[str, int], str] = field(default_factory=dict)

    def graph(self) -> dict[str, Any]:
        numbers = {self.network.inputs[0]: 0}
        nodes = []
        for node in self.network.nodes:
            nodes.append(self._node(node, [numbers[name] for name in node.inputs]))
            numbers[node.output] = len(nodes)
        return {
            "input": list(self.network.input_shape()),
            "nodes": nodes,
            "outputs": [numbers[name] for name in self.network.outputs],
        }

    def _node(self, node: Node, inputs: list[int]) -> dict[str, Any]:
        operator = "affine" if node.operator == "batch_norm" else node.operator
        attributes = {} if operator == "affine" else dict(node.attributes)
        tensors = self._tensors(node)
        if node.operator in BINARY:
            attributes["unit_scale"] = "scale" not in tensors
        shape = list(self.network.values[node.output].shape)
        parts = {"inputs": inputs, "shape": shape, "attributes": attributes, "tensors": tensors}
        return {"layer": node.layer, "operator": operator, **{key: part for key, part in parts.items() if part}}

    def _tensors(self, node: Node) -> dict[str, Any]:
        if node.operator == "batch_norm":
            factor, offset = _affine(self.network, node)
            return {"weight": self._keep(node.name, factor), "bias": self._keep(f"{node.name}+", offset)}
        places = {}
        for role, key in node.tensors.items():
            array = self._array(node, role)
            if role == "weight" and node.operator in BINARY:
                places[role] = self._keep(key, (array >= 0).astype(np.uint8), 1)
            elif role == "weight" and node.operator in QUANTIZED:
                places[role] = self._keep(key, self._codes(node, array), int(node.attributes["weight_bits"]))
            elif not (role == "scale" and node.operator in BINARY and bool((array == 1).all())):
                places[role] = self._keep(key, array)
        return places

    def _codes(self, node: Node, weight: np.ndarray) -> np.ndarray:
        bits, scale = int(node.attributes["weight_bits"]), self._array(node, "weight_scale").reshape(-1)
        return weight_codes(weight, scale, bits)

    def _array(self, node: Node, role: str) -> np.ndarray:
        tensor = self.network.tensor(node, role).detach().to("cpu", torch.float32)
        return np.ascontiguousarray(tensor.numpy())

    def _keep(self, key: str, array: np.ndarray, bits: int = 32) -> list[Any]:
        """Store an array once under a short name and return its place: name, bits, shape."""
        name = self.known.setdefault((key, bits), f"t{len(self.known)}")
        if name not in self.stored:
            self.stored[name] = array if bits == 32 else pack_codes(array.reshape(-1), bits)
        return [name, bits, list(array.shape)]


def _affine(network: Network, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and offset of a batch normalisation, computed in double precision and rounded once."""
    weight, bias, mean, variance = (
        network.tensor(node, role).detach().to("cpu", torch.float64).numpy()
        for role in ("weight", "bias", "mean", "variance")
    )
    factor = weight / np.sqrt(variance + node.attributes["epsilon"])
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)
