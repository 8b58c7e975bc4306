"""A float network becomes a plan of protocols and the model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from edgeward.backends.mpc.inference.affines import sink_affines
from edgeward.backends.mpc.inference.draft import Draft
from edgeward.backends.mpc.inference.gains import sink_gains, sink_norms
from edgeward.backends.mpc.inference.lowering_rules import RULES, check_supported
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.pools import pool_first
from edgeward.backends.mpc.protocols.comparison_layout import STANDARD, Layout, variant
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


def lower(
    network: Network,
    records: int = 1,
    *,
    ring: Ring | None = None,
    layout: Layout | None = None,
    comparison: str | None = None,
) -> Lowered:
    """Return the plan that runs `network` on batches of `records` secret records, and its tensors.

    Batch norms go into the layers before them, per-channel gains into the convolutions after them, max pools
    before rectifiers; truncations are fused with activations where nothing else reads the value. `ring` defaults to 64
    bits with 16 fraction bits; `comparison` names how values are compared: "lookup" (the default), "lookup8",
    "tree" or "fss" (function secret sharing: fewest rounds, most bytes offline); or `layout` says it in full. The
    plan's structure follows from the architecture, apart from which gains `sink_gains` and `sink_norms` could move.

    Guarantee: in exact arithmetic the same function; in the ring, rounding of weights and of every product to 2^-f, and
    curved activations to 2^-(f-4) (measured by `reference.compute`). Raises: `UnsupportedOperators` with every layer
    that has no protocol yet and what to do, `ModelError` for several inputs or outputs, `ConfigError`.
    """
    ring = ring or Ring()
    if layout is not None and comparison is not None:
        raise ConfigError("two comparisons", expected="a layout or a comparison's name", came=f"{layout}, {comparison}")
    layout = layout or (variant(comparison) if comparison else STANDARD)
    if records < 1 or layout.width > ring.bits - ring.fraction:
        came = f"{records} records, width {layout.width} in {ring}"
        raise ConfigError("no such plan", expected="records above 0 and width <= bits - fraction", came=came)
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        came = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        raise ModelError("this network has no plan", expected="one input and one output", came=came)
    network.finite()
    network = pool_first(sink_affines(sink_norms(sink_gains(fold_batch_norm(remove_identities(network))))))
    check_supported(network)
    draft = Draft(network, records, ring, layout)
    for node in network.nodes:
        if node.name not in draft.done:
            RULES[node.operator](draft, node)
    return Lowered(draft.plan(), draft.model)
