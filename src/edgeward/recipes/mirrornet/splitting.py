"""From a mirrored network to what runs in two worlds, and to what its attacker sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.attacks.extraction.exposure import Exposure
from edgeward.backends.tee.assets import one_way_split
from edgeward.backends.tee.deployment import OutputPolicy, SplitDeployment, Transfer
from edgeward.codegen.quantize import quantize, with_argmax
from edgeward.graph.network import Network
from edgeward.recipes.mirrornet.mirroring import Mirrored


def deployment(
    mirrored: Mirrored,
    calibration: Float[Tensor, "n ..."],
    *,
    policy: OutputPolicy = "label",
    percentile: float = 100.0,
) -> SplitDeployment:
    """Return `mirrored` with its monitor in int8, calibrated on private records that stay behind.

    With `policy` "label" the secure graph ends in argmax: no logit exists outside the secure world.
    """
    strategy = mirrored.strategy
    return split(
        strategy.name,
        mirrored.normal,
        mirrored.monitor,
        calibration,
        plain={"kind": "mirrornet", **strategy.to_json()},
        transfer=cast(Transfer, strategy.transfer),
        policy=policy,
        private=strategy.preset != "public",
        percentile=percentile,
    )


def split(
    name: str,
    normal: Network,
    secure: Network,
    calibration: Float[Tensor, "n ..."],
    *,
    plain: Mapping[str, object],
    transfer: Transfer = "batch",
    policy: OutputPolicy = "label",
    private: bool = True,
    percentile: float = 100.0,
) -> SplitDeployment:
    """Return the deployment of a normal-world network whose first outputs feed a secure network."""
    taps = _taps(normal, calibration)[: len(secure.inputs)]
    graph = quantize(
        secure, {v: tap.numpy() for v, tap in zip(secure.inputs, taps, strict=True)}, percentile=percentile
    )
    graph = with_argmax(graph) if policy == "label" else graph
    assets = one_way_split(private_normal_world=private)
    return SplitDeployment(name, normal, graph, dict(plain), transfer, policy, assets)


@torch.no_grad()
def _taps(normal: Network, records: Tensor) -> tuple[Tensor, ...]:
    from edgeward.graph.module import to_module

    found = to_module(normal)(records)
    return found if isinstance(found, tuple) else (found,)


def exposure(mirrored: Mirrored, public: Mapping[str, Tensor]) -> Exposure:
    """Return what the owner of the device sees of `mirrored`: the backbone as far as it runs outside, and the taps.

    `public` is the attacker's prior by key of the backbone. Where the normal world ends at its last tap, the rest of
    the backbone's architecture is known but its tensors are not there.
    """
    held = mirrored.normal.tensors
    return Exposure(
        mirrored.strategy.name,
        mirrored.backbone,
        {key: held[key].clone() for key in _learned(mirrored.backbone) if key in held},
        dict(public),
        taps=tuple(value for value in mirrored.watched if value not in mirrored.backbone.inputs),
        direct=mirrored.direct,
    )


def _learned(network: Network) -> tuple[str, ...]:
    from edgeward.attacks.extraction.exposure import learned_keys

    return learned_keys(network)
