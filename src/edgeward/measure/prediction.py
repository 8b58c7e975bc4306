"""Latency of one inference predicted from a device profile: a roofline per operator plus its overhead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from edgeward.devices import Basis, DeviceProfile, Figure, weakest
from edgeward.graph.network import Network
from edgeward.measure.form import DeviceForm, device_form
from edgeward.measure.schedule import calls
from edgeward.measure.work import node_work


@final
@dataclass(frozen=True)
class Prediction:
    """Seconds per node for one record, and the weakest basis among the profile's figures they were made from."""

    seconds: Mapping[str, float]
    basis: Basis

    @property
    def total(self) -> float:
        """Seconds of one inference."""
        return sum(self.seconds.values())


def predict_latency(network: Network, device: DeviceProfile, form: DeviceForm | None = None) -> Prediction:
    """Predict the seconds of one inference on one core of `device`, in `form` (`device_form` by default).

    Every called operator takes max(MACs / rate, bytes / bandwidth) + overhead; bytes are its weights, inputs and
    output, each once. Fused and aliased operators take nothing.
    Guarantee: modelled; expected within the profile's `band` (assumed until measured on the device).
    """
    kinds, form = calls(network), form or device_form(network, device)
    used: list[Figure] = [device.bytes_per_second, device.op_overhead_seconds]
    seconds = {}
    for node in network.nodes:
        if kinds[node.name] in ("fused", "alias"):
            seconds[node.name] = 0.0
            continue
        moved = sum(form.values[name] for name in {node.output, *node.inputs}) + form.stored[node.name]
        busy = moved / device.bytes_per_second.value
        work = node_work(network, node)
        if work.macs:
            rate = device.rate(work.precision, work.operator_class)
            used.append(rate)
            busy = max(busy, work.macs / rate.value)
        seconds[node.name] = busy + device.op_overhead_seconds.value
    return Prediction(seconds, weakest(used))
