"""A float network becomes a plan of protocols and the model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.draft import Draft
from edgeward.backends.mpc.inference.gains import sink_gains, sink_norms
from edgeward.backends.mpc.inference.lowering_rules import RULES, check_supported
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError, ModelError
from edgeward.graph import fold_batch_norm, remove_identities
from edgeward.graph.network import Network


@final
@dataclass(frozen=True, eq=False)
class Lowered:
    """A public plan, and the model's float tensors by the names of the plan's secrets: for its owner only."""

    plan: Plan
    model: Mapping[str, np.ndarray] = field(repr=False)


def lower(network: Network, records: int = 1, *, ring: Ring | None = None, layout: Layout = STANDARD) -> Lowered:
    """Return the plan that runs `network` on batches of `records` secret records, and its tensors.

    Batch norms go into the layers before them, per-channel gains into the convolutions after them; truncations are
    fused with activations where nothing else reads the value. `ring` defaults to 64 bits with 16 fraction bits;
    `layout` says how many bits are compared and in how many rounds. The plan's structure follows from the
    architecture, apart from which gains `sink_gains` and `sink_norms` could move.

    Guarantee: in exact arithmetic the same function; in the ring, rounding of weights and of every product to 2^-f
    (measured by `reference.compute`). Raises: `UnsupportedOperators` with every layer that has no protocol yet and what
    to do, `ModelError` for several inputs or outputs, `ConfigError`.
    """
    ring = ring or Ring()
    if records < 1 or layout.width > ring.bits - ring.fraction:
        came = f"{records} records, width {layout.width} in {ring}"
        raise ConfigError("no such plan", expected="records above 0 and width <= bits - fraction", came=came)
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        came = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        raise ModelError("this network has no plan", expected="one input and one output", came=came)
    network.finite()
    network = sink_norms(sink_gains(fold_batch_norm(remove_identities(network))))
    check_supported(network)
    draft = Draft(network, records, ring, layout)
    for node in network.nodes:
        if node.name not in draft.done:
            RULES[node.operator](draft, node)
    return Lowered(draft.plan(), draft.model)
