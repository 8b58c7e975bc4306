"""`SPLITS`: other ways to hide part of a network, each as what runs (where it runs one way) and what is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from edgeward.attacks.extraction.exposure import Exposure, learned_keys
from edgeward.backends.tee.deployment import SplitDeployment, Traffic
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.core.registry import Registry
from edgeward.graph.module import to_module
from edgeward.graph.network import Network


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """What a strategy splits: a trained network (normalisation folded in), the attacker's prior by key, calibration.

    `records` are private records [m, ...] with labels [m], for strategies that train; without them these learn from the
    calibration records as the victim labels them.
    """

    victim: Network
    public: Mapping[str, Tensor]
    calibration: Float[Tensor, "n ..."]
    seed: Seed
    records: tuple[Float[Tensor, "m ..."], Int[Tensor, " m"]] | None = None


@final
@dataclass(frozen=True, eq=False)
class Split:
    """One strategy applied.

    `deployment` is None where features would return from the secure world (two-way traffic) or nothing is hidden: such
    a strategy is audited, not run. `traffic` is what one inference moves, `secure_bytes` the int8 bytes of the weights
    that are hidden. `logits` is what an authorised user gets where no deployment runs and that is not the victim's own
    answer.
    """

    name: str
    exposure: Exposure
    traffic: Traffic
    secure_bytes: int
    deployment: SplitDeployment | None = None
    notes: tuple[str, ...] = ()
    logits: Callable[[Tensor], Tensor] | None = None


SPLITS: Registry[Callable[[Subject], Split]] = Registry("split strategy")


def numbers(network: Network) -> int:
    """Return how many learned numbers a network holds: its bytes in int8."""
    return sum(network.tensors[key].numel() for key in learned_keys(network))


def feature_bytes(network: Network, *values: str) -> int:
    """Return the int8 bytes of values of `network` per record."""
    return sum(network.values[value].elements for value in values)


def need_stages(count: int, wanted: int, name: str) -> None:
    """Raise `ModelError` where a network has fewer than `wanted` stages."""
    if count < wanted:
        raise ModelError(
            f"'{name}' cannot split this network",
            expected=f"at least {wanted} stages",
            came=str(count),
            fix="use the strategy 'whole'",
        )


def need_layers(count: int, name: str) -> None:
    """Raise `ModelError` where a network has no convolution that a strategy could change."""
    if not count:
        fix = "use the strategy 'whole'"
        raise ModelError(f"'{name}' cannot split this network", expected="a convolution", came="none", fix=fix)


def named_parameters(network: Network) -> dict[str, str]:
    """Return the name in `to_module(network)` of each tensor that a standard layer holds, by key of the network.

    >>> import torch
    >>> from edgeward.graph import capture
    >>> named_parameters(capture(torch.nn.Sequential(torch.nn.Linear(2, 3)), (2,)))["0.weight"]
    '0.weight'
    """
    roles = {"weight": "weight", "bias": "bias"}
    steps = to_module(network).steps()
    return {key: f"{path}.{roles[r]}" for node, path in steps for r, key in node.tensors.items() if r in roles}
