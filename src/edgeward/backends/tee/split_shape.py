"""`SplitShape`: what the emulator needs to know of a split: shapes, bytes and the normal world's network; no
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from edgeward.backends.tee.secure_steps import SecureStep, steps_of
from edgeward.core.errors import CompositionError
from edgeward.graph.liveness import peak_activation_bytes
from edgeward.graph.network import Network

if TYPE_CHECKING:
    from edgeward.backends.tee.deployment import SplitDeployment, Transfer


@final
@dataclass(frozen=True, eq=False)
class SplitShape:
    """One split by shape: `taps` are values of `normal` in the order of the secure inputs, `tap_bytes` their int8
    sizes.

    `victim` is the unprotected network that overheads are measured against; None takes `normal` itself.
    """

    name: str
    normal: Network
    taps: tuple[str, ...]
    tap_bytes: tuple[int, ...]
    steps: tuple[SecureStep, ...]
    weight_bytes: int
    arena_bytes: int
    output_bytes: int
    transfer: Transfer = "batch"
    victim: Network | None = None


def shape_of(deployment: SplitDeployment, victim: Network | None = None) -> SplitShape:
    """Return the shape of a deployment, with its planned arena and packed weights."""
    from edgeward.codegen.arena import plan
    from edgeward.codegen.blob import pack

    secure = deployment.secure
    return SplitShape(
        deployment.name,
        deployment.normal,
        deployment.taps,
        tuple(value.bytes for value in deployment.tap_values),
        steps_of(secure),
        len(pack(secure)),
        plan(secure).bytes,
        sum(secure.values[name].bytes for name in secure.outputs),
        deployment.transfer,
        victim,
    )


def sketch(
    name: str, normal: Network, secure: Network, transfer: Transfer = "batch", victim: Network | None = None
) -> SplitShape:
    """Return the shape of a split before anything is trained or quantised: from the two float networks.

    The first outputs of `normal` are the taps, in the order of `secure.inputs`. Memory is the liveness bound at one
    byte per element (a lower bound; the planned arena adds alignment and scratch).
    """
    taps = normal.outputs[: len(secure.inputs)]
    sent = [normal.values[tap].shape for tap in taps]
    read = [secure.values[value].shape for value in secure.inputs]
    if sent != read:
        raise CompositionError(
            f"the split '{name}' does not fit together", expected=f"taps of {read}", came=f"outputs of {sent}"
        )
    steps = steps_of(secure)
    return SplitShape(
        name,
        normal,
        taps,
        tuple(normal.values[tap].elements for tap in taps),
        steps,
        sum(step.weight_bytes for step in steps),
        int(peak_activation_bytes(secure, lambda value: int(value.name not in secure.inputs)).peak_bytes),
        sum(secure.values[output].elements for output in secure.outputs),
        transfer,
        victim,
    )


def describe(split: SplitShape | SplitDeployment) -> SplitShape:
    """Return `split` as a shape."""
    return split if isinstance(split, SplitShape) else shape_of(split)
