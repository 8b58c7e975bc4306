"""The cost vector of a network on a device: exact counts, and predictions from the device's profile."""

from __future__ import annotations

from collections.abc import Mapping

from edgeward.core.cost import Cost
from edgeward.core.measurement import LayerCost
from edgeward.core.units import human
from edgeward.devices import DeviceProfile
from edgeward.graph.network import Network
from edgeward.measure.energy import board_energy_joules
from edgeward.measure.form import DeviceForm, device_form
from edgeward.measure.prediction import predict_latency
from edgeward.measure.weights import Weights, node_weights
from edgeward.measure.work import ace, cpu64_classic, cpu64_lane, node_work, total_macs


def network_cost(
    network: Network, device: DeviceProfile, *, file_bytes: int | None = None
) -> tuple[Cost, tuple[LayerCost, ...]]:
    """Return what one inference of `network` costs on `device`, and its table per layer.

    Counts (parameters, weight bytes, MACs, bit operations, ACE, CPU64) are "declared": exact for this graph, weight
    bytes for the form that runs on the device (`device_form`). Peak RAM, latency and energy are "modelled" from form
    and profile. `file_bytes`, the size of the file that ships, is "measured". Where the device has no flash to execute
    from, the weights are added to the peak RAM.
    """
    form = device_form(network, device)
    work = [node_work(network, node) for node in network.nodes]
    weights = sum(node_weights(network).values(), Weights())
    effort = ace(work)
    cost = Cost().adding(
        "declared",
        "counted on the graph",
        parameters=weights.parameters,
        nonzeros=weights.nonzeros,
        binary_weights=weights.binary_weights,
        binary_weight_bytes=weights.binary_weight_bytes,
        macs=total_macs(work),
        bit_operations=effort,
        ace=effort,
        cpu64_classic=cpu64_classic(work),
        cpu64_lane=cpu64_lane(work),
    )
    cost = cost.adding("declared", f"counted on the graph, as the {form.title} has them", weight_bytes=_stored(form))
    cost = _predicted(cost, network, device, form)
    if file_bytes is not None:
        cost = cost.adding("measured", "size of the file", file_bytes=file_bytes)
    return cost, layer_table(network, form.stored)


def _stored(form: DeviceForm) -> int:
    return sum(form.stored.values())


def _predicted(cost: Cost, network: Network, device: DeviceProfile, form: DeviceForm) -> Cost:
    prediction = predict_latency(network, device, form)
    energy = board_energy_joules(prediction.total, device)
    source = f"profile {device.name} (rates of {device.runtime}), {{}} figures, within a factor {device.band.value:g}"
    peak, held = form.peak_bytes, form.held
    if device.flash_bytes is None:
        peak, held = peak + _stored(form), f"{held}, and the weights"
    return (
        cost.adding("modelled", held, peak_ram_bytes=peak)
        .adding("modelled", source.format(prediction.basis), device_latency_seconds=prediction.total)
        .adding("modelled", f"{source.format(energy.basis)}; power x time", energy_joules=energy.value)
    )


def layer_table(network: Network, stored: Mapping[str, int] | None = None) -> tuple[LayerCost, ...]:
    """Return one row per operator that multiplies or holds tensors; the rows add up to the totals.

    `stored` gives the weight bytes per node of another form than the graph's own.
    """
    if stored is None:
        stored = {name: weights.stored_bytes for name, weights in node_weights(network).items()}
    rows = []
    for node in network.nodes:
        work = node_work(network, node)
        if not work.macs and not node.tensors and not stored[node.name]:
            continue
        rows.append(
            LayerCost(
                name=node.layer or node.name,
                operator=node.operator,
                output_shape=network.values[node.output].shape,
                macs=work.macs,
                weight_bits=work.weight_bits,
                activation_bits=work.activation_bits,
                weight_bytes=stored[node.name],
                ace=ace([work]),
            )
        )
    return tuple(rows)


def fits(cost: Cost, device: DeviceProfile) -> list[str]:
    """Return why `cost` does not fit `device`, one sentence per reason; empty when it fits.

    The file (or, without one, the packed weights) is held against the flash, peak RAM against the RAM.
    """
    problems = []
    stored = "file_bytes" if "file_bytes" in cost else "weight_bytes"
    for name, room, place in ((stored, device.flash_bytes, "flash"), ("peak_ram_bytes", device.ram_bytes, "RAM")):
        if room is not None and name in cost and cost.value(name) > room.value:
            needed, there = human(cost.value(name), "B"), human(room.value, "B")
            problems.append(f"{name} is {needed}, but {device.name} has {there} of {place}")
    return problems
