"""What `protect` accepts for a model and for records, turned into one form."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgeward.core.errors import DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference
from edgeward.data import from_torch
from edgeward.data.splits import Splits
from edgeward.graph import Network
from edgeward.train.population import Factory

LEAST_PLANTED = 4
"""Two pairs of a planted kind: with fewer, no model could have both a member and a non-member."""


def as_factory(model: nn.Module | Factory) -> Factory:
    """Return a factory of freshly initialised modules.

    A module is used for its architecture only: each sibling is a copy whose layers are re-initialised by their own
    `reset_parameters`. Errors: `ModelError` listing parameters that no layer can re-initialise.
    """
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise ModelError("the model is neither a module nor a factory", came=type(model).__name__)
        return model
    covered = {id(p) for m in model.modules() if hasattr(m, "reset_parameters") for p in m.parameters(recurse=False)}
    stuck = [name for name, p in model.named_parameters() if id(p) not in covered]
    if stuck:
        raise ModelError(
            f"{len(stuck)} parameters cannot be re-initialised, which an audit needs",
            expected="layers with reset_parameters, or a factory",
            came=", ".join(stuck[:6]),
            fix="pass a function that builds a fresh module instead of the module",
        )
    original = copy.deepcopy(model)

    def fresh() -> nn.Module:
        module = copy.deepcopy(original)
        for layer in module.modules():
            reset: Callable[[], None] | None = getattr(layer, "reset_parameters", None)
            if reset is not None:
                with torch.no_grad():
                    reset()
        return module

    return fresh


def as_splits(
    data: Splits | None,
    train: Any,
    holdout: Any,
    validation: Any,
    shadow: Any,
    classes: int | None,
    seed: int,
    canaries: int,
) -> Splits:
    """Return checked splits from a `Splits` or from torch datasets."""
    given = [x is not None for x in (train, holdout, validation, shadow)]
    if (data is None) == (train is None and holdout is None) or (data is not None and any(given)):
        raise DataError(
            "the records are given twice or not at all",
            expected="either data=Splits, or train= and holdout= datasets",
            came="both" if data is not None else "neither",
            fix="give data=edgeward.data.load('digits', ...) or train=..., holdout=...",
        )
    if data is not None:
        return data.check()
    if train is None or holdout is None:
        raise DataError(
            "train and holdout are needed together",
            expected="members (train) and non-members (holdout)",
            came="only " + ("train" if holdout is None else "holdout"),
            fix="hold some records out of training; the audit compares them with the members",
        )
    return from_torch(
        train,
        holdout,
        validation=validation,
        shadow=shadow,
        classes=classes,
        canaries=canaries,
        seed=Seed(seed).child("data"),
    )


def classified(splits: Splits, network: Network) -> Splits:
    """Return `splits` with as many classes as the network answers logits for.

    Errors: `ModelError` for several answers per record (early exits), for answers that are no vector of logits, and
    for fewer logits than the records have classes. More logits than labels seen are no error: a class may be rare.
    """
    shapes = [network.values[name].shape for name in network.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        several = len(shapes) != 1
        raise ModelError(
            "the network is no classifier with one answer per record",
            expected="one tensor of logits [n, classes]",
            came=", ".join(str(["n", *shape]) for shape in shapes),
            fix="return one exit, the last for instance, from `forward`" if several else "return logits [n, classes]",
        )
    logits = shapes[0][0]
    if logits < splits.classes:
        raise ModelError(
            f"labels out of range: the network answers {logits} logits, the records have {splits.classes} classes",
            expected=f"labels 0 .. {logits - 1}, or a network with {splits.classes} outputs",
            came=f"labels up to {splits.classes - 1}",
            fix="build the network with as many outputs as classes, or correct the labels",
        )
    return splits if logits == splits.classes else replace(splits, classes=logits).check()


def enough_canaries(splits: Splits, threat: MembershipInference) -> None:
    """Raise a `DataError` where the records have too few canary sources for the planted kinds the threat names."""
    weight = sum(kind.sources for kind in threat.planted)
    needed = math.ceil(LEAST_PLANTED * weight) if weight else LEAST_PLANTED
    found = len(splits.canary_sources)
    if threat.planted and found < needed:
        raise DataError(
            f"the records of '{splits.name}' have too few canaries to plant",
            expected=f"at least {needed} for the kinds {', '.join(kind.slug for kind in threat.planted)}",
            came=str(found),
            fix="give more training records and canaries, or audit kinds that are not planted: kinds=['natural']",
        )
