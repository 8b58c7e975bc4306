"""Magnitude: the largest hundredth of all weights lives in the secure world and is zero outside."""

from __future__ import annotations

from dataclasses import replace

from edgeward.attacks.extraction.exposure import Exposure, weight_keys
from edgeward.backends.tee.deployment import Traffic
from edgeward.recipes.splits.split import SPLITS, Split, Subject, feature_bytes

SHARE = 0.01


@SPLITS.register("magnitude")
def magnitude(subject: Subject) -> Split:
    """Hide the largest 1 % of the weights; every layer needs the secure world's share of its result: audited, not run.

    Source: the strategy of that name in TEESlice's comparison (Zhang et al., S&P 2024).
    """
    victim = subject.victim
    shown = Exposure.of("magnitude", victim, subject.public).zeroing(SHARE)
    exposure = replace(shown, direct=replace(victim, tensors={**victim.tensors, **shown.visible}))
    layers = [n for n in victim.nodes if n.operator in ("conv2d", "linear")]
    inward = sum(feature_bytes(victim, node.inputs[0]) for node in layers)
    back = sum(feature_bytes(victim, node.output) for node in layers)
    held = round(SHARE * sum(victim.tensors[key].numel() for key in weight_keys(victim)))
    traffic = Traffic(False, len(layers), inward, back)
    return Split("magnitude", exposure, traffic, held, notes=("features return after every layer: audited, not run",))
