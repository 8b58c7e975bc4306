"""Evaluate one trained candidate: utility, leakage and cost of the executable that goes into the bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from edgeward.attacks.privacy import resolution_note
from edgeward.core.claim import Claim
from edgeward.core.interval import Estimate
from edgeward.core.measurement import Measurement
from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.core.record_kind import KINDS
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits
from edgeward.devices import DeviceProfile
from edgeward.measure.latency import host_latency
from edgeward.measure.leakage import Leakage, leakage, population_leakage
from edgeward.measure.membership_design import MembershipDesign
from edgeward.measure.siblings import Siblings, answers
from edgeward.measure.utility import accuracy
from edgeward.train.task import Trained

UNTESTED = (
    "white-box attacks that read weights or gradients",
    "attribute inference, model inversion, property inference",
    "physical side channels of the device (timing, power, memory access)",
    "robustness to adversarial inputs",
)


def _audited_accuracy(siblings: Siblings, plan: MembershipDesign, kind: str, x: Tensor, y: Tensor) -> Estimate:
    """Return the mean accuracy of the siblings that records of `kind` were audited on."""
    models = next(panel.models for panel in plan.panels if panel.kind.slug == kind)
    right = answers(tuple(siblings.audited[i] for i in models.tolist()), x).argmax(-1) == y
    per_model = right.float().mean(1)
    spread = float(per_model.std()) * 1.96 / len(per_model) ** 0.5
    mean = float(per_model.mean())
    return Estimate(mean, max(0.0, mean - spread), min(1.0, mean + spread), len(per_model), "normal over models")


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _measured_claim(found: Leakage, negatives: int, threat: MembershipInference) -> Claim:
    worst, kind = found.worst, KINDS[found.worst.kind]
    rate = worst.corrected
    statement = (
        f"{worst.name} on {kind.title}, the strongest of {worst.attacks} attacks on {len(found.kinds)} kinds of "
        f"records, reaches TPR {_percent(rate.value)} at 1 % FPR [{_percent(rate.low)}, {_percent(rate.high)}] over "
        f"{negatives} non-member trials, corrected for having been chosen"
    )
    who = f"holder of the model, {threat.access} access, {threat.shadows - 1} shadow models of the same recipe"
    records = "with planted records" if kind.planted else "on random halves of the records"
    what = f"audit of {threat.shadows} lowered siblings trained {records}; thresholds read off the pooled ROC"
    return Claim("training records", who, statement, "measured", what)


def evaluate(
    trained: Trained,
    siblings: Siblings,
    plan: MembershipDesign,
    splits: Splits,
    threat: MembershipInference,
    device: DeviceProfile,
    *,
    seconds: float,
    watcher: Watcher,
    label: str,
    seed: Seed,
    extra: Mapping[str, Any] | None = None,
) -> Measurement:
    """Measure a candidate; `seconds` is what its training took on this host, `seed` draws what the audit draws."""
    started = time.perf_counter()
    watcher.step(f"{label}: audit", 0, 1)
    found = leakage(siblings, plan, splits, threat, seed)
    negatives = next(a.negatives for a in found.attacks if a.kind == found.worst.kind)
    claim = _measured_claim(found, negatives, threat)
    coarse = resolution_note(negatives, 0.001)
    watcher.step(f"{label}: audit", 1, 1, claim.statement)
    worlds = siblings.worlds
    cost, layers = siblings.cost(device)
    sample = host_latency(siblings.shipped, splits.input_shape)
    source = f"this host, {sample.runtime}, {sample.threads} thread{'s' if sample.threads != 1 else ''}, batch 1"
    cost = cost.adding("measured", source, host_latency_seconds=sample.median)
    cost = cost.adding("declared", "recipe", training_runs=trained.trainings + (worlds.trainings if worlds else 0))
    cost = cost.adding("measured", f"this host, {len(trained.population)} models at once", training_seconds=seconds)
    return Measurement(
        test_accuracy=accuracy(siblings.shipped, splits.holdout.x, splits.holdout.y),
        validation_accuracy=accuracy(siblings.shipped, splits.validation.x, splits.validation.y),
        train_accuracy=accuracy(siblings.shipped, splits.train.x, splits.train.y),
        audit_accuracy=_audited_accuracy(siblings, plan, found.worst.kind, splits.holdout.x, splits.holdout.y),
        attacks=(*found.attacks, *population_leakage(siblings, splits, threat)),
        kinds=found.kinds,
        worst=found.worst,
        cost=cost,
        layers=layers,
        claims=(*trained.claims, claim, *(worlds.claim() if worlds else ())),
        mode="host",
        notes=(*trained.notes, *([coarse] if coarse else []), *siblings.notes(device)),
        extra={
            "runtime": siblings.shipped.runtime,
            "untested": [*UNTESTED, *(worlds.untested() if worlds else ())],
            "evaluation_seconds": time.perf_counter() - started,
            **(worlds.extra() if worlds else {}),
            **(extra or {}),
        },
    )
