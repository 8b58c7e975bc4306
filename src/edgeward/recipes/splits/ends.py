"""The two ends every split is compared with: the whole network in the secure world, and nothing in it."""

from __future__ import annotations

from edgeward.attacks.extraction.exposure import Exposure
from edgeward.backends.tee.deployment import Traffic
from edgeward.graph.partition import stages
from edgeward.recipes.splits.deep import suffix
from edgeward.recipes.splits.split import SPLITS, Split, Subject, numbers


@SPLITS.register("whole")
def whole(subject: Subject) -> Split:
    """Hide everything: the normal world passes the record on and sees nothing but the answer (the black box)."""
    deployment = suffix(subject, stages(subject.victim)[0], "whole")
    exposure = Exposure("whole", subject.victim, {}, dict(subject.public))
    return Split("whole", exposure, deployment.traffic, numbers(subject.victim), deployment)


@SPLITS.register("none")
def none(subject: Subject) -> Split:
    """Hide nothing: the network runs in the normal world alone."""
    exposure = Exposure.of("none", subject.victim, subject.public, direct=subject.victim)
    return Split("none", exposure, Traffic(True, 0, 0, 0), 0, notes=("nothing is hidden; no secure world is used",))
