"""`DeviceForm`: in which form a network runs on a device, and what that form keeps in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import final

from edgeward.backends.backend import BACKENDS
from edgeward.codegen.arena import plan
from edgeward.codegen.calibration import has_ranges
from edgeward.codegen.integer import IntegerGraph
from edgeward.codegen.quantize import quantize_calibrated, structure
from edgeward.devices import DeviceProfile
from edgeward.graph.liveness import peak_activation_bytes
from edgeward.graph.network import Network
from edgeward.measure.schedule import value_bytes
from edgeward.measure.weights import node_weights


@final
@dataclass(frozen=True)
class DeviceForm:
    """What runs of a network on a device.

    `backend` is the slug of the form, `title` says it in words, `why_not` why no form that edgeward writes runs there
    (empty where one does). Bytes: `peak_bytes` of RAM without the weights, as `held` describes it; `values` per record
    and `stored` weights per node, where they are moved from and to.
    """

    backend: str
    title: str
    why_not: str
    peak_bytes: int
    held: str
    values: Mapping[str, int]
    stored: Mapping[str, int]


def device_form(network: Network, device: DeviceProfile) -> DeviceForm:
    """Return the form in which `network` runs on `device`.

    On a microcontroller the int8 C, where the network has it: its peak is the planned arena and the input, which stays
    where the caller put it; the stack and a copy of the result are not counted. Elsewhere, and where there is no such
    C, the file of a runtime: the activations' peak by liveness, a lower bound of any runtime. Of a network that was not
    calibrated the C is laid out without its scales; its arena is then expected, not proved, to be that of the shipped.
    """
    if device.kind != "mcu":
        return _of_runtime(network, _file(network), "")
    reasons = BACKENDS["c"].reasons_against(network)
    if not reasons:
        return _of_c(network, quantize_calibrated(network) if has_ranges(network) else structure(network))
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return _of_runtime(network, _file(network), f"edgeward writes no C for {device.name}: {reasons[0]}{more}")


def _of_c(network: Network, graph: IntegerGraph) -> DeviceForm:
    arena = plan(graph).bytes
    given = sum(value.bytes for value in graph.value_of(graph.inputs))
    stored = dict.fromkeys((node.name for node in network.nodes), 0)
    counted: set[str] = set()
    for node in graph.nodes:
        for key in node.tensors.values():
            # nodes that stand for a part of an operator are named after it, behind a colon
            stored[node.name.split(":")[0]] += 0 if key in counted else graph.tensors[key].nbytes
            counted.add(key)
    values = {name: prod(value.shape) for name, value in network.values.items()}
    held = f"int8 C: planned arena {arena:,} B, input {given:,} B; without stack"
    return DeviceForm("c", "int8 C", "", arena + given, held, values, stored)


def _of_runtime(network: Network, backend: str, why_not: str) -> DeviceForm:
    sizes = value_bytes(network)
    found = peak_activation_bytes(network, lambda value: sizes[value.name] / max(1, value.elements))
    title = f"{'packed' if backend == 'packed' else 'ONNX'} file"
    held = f"{title}: activations, buffers reused"
    held += f"; {why_not}, so that a runtime for this file would be needed there" if why_not else ""
    stored = {name: weights.stored_bytes for name, weights in node_weights(network).items()}
    return DeviceForm(backend, title, why_not, round(found.peak_bytes), held, sizes, stored)


def _file(network: Network) -> str:
    """Return what `choose_backend` prefers, without asking whether it can: cost is told of any network."""
    narrow = any(
        node.operator.startswith("binary_") or int(node.attributes.get("weight_bits", 32)) < 8 for node in network.nodes
    )
    return "packed" if narrow else "onnx"
