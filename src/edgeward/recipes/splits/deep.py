"""Layer splits: the last layers in the secure world (DarkneTZ), or the first ones (Serdab)."""

from __future__ import annotations

from edgeward.attacks.extraction.exposure import Exposure, learned_keys
from edgeward.backends.tee.deployment import SplitDeployment, Traffic
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, stages, subnetwork
from edgeward.recipes.mirrornet.splitting import split
from edgeward.recipes.splits.split import SPLITS, Split, Subject, feature_bytes, need_stages, numbers


def suffix(subject: Subject, cut: Cut, name: str) -> SplitDeployment:
    """Return the deployment of everything behind `cut` in the secure world."""
    victim = subject.victim
    normal = subnetwork(victim, victim.inputs, (cut.value,))
    secure = subnetwork(victim, (cut.value,), victim.outputs[-1:])
    return split(name, normal, secure, subject.calibration, plain={"kind": name, "cut": cut.index})


@SPLITS.register("deep")
def deep(subject: Subject) -> Split:
    """Hide the last stage and the head; one value crosses, one way.

    Source: Mo et al., DarkneTZ, MobiSys 2020 (deep layers in the enclave).
    """
    return _behind(subject, -2, "deep")


@SPLITS.register("head")
def head(subject: Subject) -> Split:
    """Hide what follows the last stage: the classifier. Source: DarkneTZ's smallest configuration."""
    return _behind(subject, -1, "head")


def _behind(subject: Subject, index: int, name: str) -> Split:
    at = stages(subject.victim)
    need_stages(len(at) - 1, 2, name)
    deployment = suffix(subject, at[index], name)
    seen = deployment.normal
    hidden = set(learned_keys(subject.victim)) - set(learned_keys(seen))
    exposure = Exposure.of(name, subject.victim, subject.public, hidden=hidden, taps=(at[index].value,))
    return Split(name, exposure, deployment.traffic, _bytes(subject.victim, hidden), deployment)


@SPLITS.register("shallow")
def shallow(subject: Subject) -> Split:
    """Hide the first stage; its result returns to the normal world, so that this split is audited and not run.

    Source: Elgamal & Nahrstedt, Serdab, CCGRID 2020 (first layers in the enclave).
    """
    victim, at = subject.victim, stages(subject.victim)
    need_stages(len(at) - 1, 2, "shallow")
    first = subnetwork(victim, victim.inputs, (at[1].value,))
    exposure = Exposure.of("shallow", victim, subject.public, hidden=learned_keys(first), taps=(at[1].value,))
    traffic = Traffic(False, 1, feature_bytes(victim, victim.inputs[0]), feature_bytes(victim, at[1].value))
    return Split("shallow", exposure, traffic, numbers(first), notes=("features return: audited, not run",))


def _bytes(network: Network, keys: set[str]) -> int:
    return sum(network.tensors[key].numel() for key in keys)
