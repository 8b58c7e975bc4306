"""Membership on the visible part: threshold attacks on the answer that the normal world gives by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from edgeward.attacks.metrics import judged
from edgeward.attacks.oracle import Oracle
from edgeward.attacks.statistics import STATISTICS, evaluate
from edgeward.core.errors import DataError
from edgeward.core.measurement import AttackResult
from edgeward.data.records import Records

LEAST = 20
"""Fewer members or outsiders than this give no usable rate."""


def visible_membership(run: Callable[[np.ndarray], np.ndarray], members: Records, outsiders: Records) -> AttackResult:
    """Return the strongest threshold attack (by AUC) on one network that shows its logits.

    `run` maps records to logits [n, C]; `members` were trained on by the deployment, `outsiders` by nobody. One target
    and no shadow models: statistics have one global threshold, and the gap attack (is the answer correct) is among
    them.

    Guarantee: measured, a lower bound; choosing the strongest of six statistics in hindsight favours the attacker.
    """
    if min(len(members), len(outsiders)) < LEAST:
        raise DataError(
            "too few records to measure membership",
            expected=f"at least {LEAST} members and {LEAST} outsiders",
            came=f"{len(members)} and {len(outsiders)}",
            fix="pass more of the deployment's training records and of records it never saw",
        )
    inside, outside = (_log_confidences(Oracle(run, "confidence"), records) for records in (members, outsiders))
    truth = torch.cat([torch.ones(len(members)), torch.zeros(len(outsiders))]).bool()
    found = []
    for name in STATISTICS:
        scores = torch.cat([evaluate(name, inside, members.y), evaluate(name, outside, outsiders.y)])
        label = "gap" if name == "correctness" else name
        found.append(judged(label, scores, truth, kind="population", adaptive=False))
    return max(found, key=lambda result: (result.auc.value, result.name))


def _log_confidences(oracle: Oracle, records: Records) -> Float64[Tensor, "n C"]:
    return torch.cat([oracle.log_confidences(part.numpy()) for part in torch.split(records.x, 512)])
