"""Splits are chosen on validation records; the holdout only reports."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from edgeward.attacks.extraction.attacker import Attempt, Theft
from edgeward.attacks.extraction.report import BudgetResult, OwnChoice, StealingReport
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.split_shape import describe
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.interval import Estimate
from edgeward.devices import load_profile
from edgeward.recipes.mirrornet import Limits, Strategy, deployment, mirror
from edgeward.split_choice import SplitMeasurement, Terms
from edgeward.transforms.mirror import Block
from recipes.mirror_task import digits, task, victim

LIMITS = Limits(2.0**31, overhead=float("inf"))


def about(value):
    return Estimate(value, value - 0.01, value + 0.01, 200)


def stolen(name, ratio, choosing):
    attempt = Attempt("fine-tuned", 1e-3, 0.5, -1.0)
    guesses = torch.zeros(1, 1, 3, dtype=torch.int64)
    theft = Theft(50, attempt, (attempt,), guesses[0], (attempt,), guesses)
    own = OwnChoice("fine-tuned", about(0.5), about(ratio))
    half = about(0.5)
    result = BudgetResult(
        50, "fine-tuned", 1e-3, 0.5, half, half, half, half, about(ratio), half, theft, own,
        None if choosing is None else about(choosing),
    )  # fmt: skip
    rest = {"membership": None, "membership_reason": "", "recovered": None, "recovery": (), "attacker": {}, "seeds": 1}
    return StealingReport(name, about(0.9), None, "none", None, (result,), **rest, victim_queries=50)


@lru_cache
def whole():
    strategy = Strategy("whole", tuple(Block(stage, "stage") for stage in (1, 2, 3)))
    split = deployment(mirror(victim(), strategy, task()), digits("train").x[:50])
    return strategy, split, Emulator(load_profile("rpi3-optee")).estimate(describe(split))


def measured(name, *, holdout, validation, ratio, choosing):
    strategy, split, estimate = whole()
    validated = None if validation is None else about(validation)
    own = stolen(name, ratio, choosing)
    return SplitMeasurement(replace(strategy, name=name), split, about(holdout), estimate, own, validated)


LUCKY = {"holdout": 0.95, "validation": 0.88, "ratio": 1.0, "choosing": 1.2}
SOUND = {"holdout": 0.90, "validation": 0.93, "ratio": 1.1, "choosing": 1.0}


def test_the_holdout_does_not_choose():
    terms = Terms(LIMITS, about(0.92), 0.02, about(0.93))
    found = [measured("lucky", **LUCKY), measured("sound", **SOUND)]
    assert terms.missed(found[0]) == ("accuracy 88.0%, at least 91.0%",)
    assert not terms.missed(found[1])
    assert terms.choose(found).strategy.name == "sound"
    near = [replace(split, validated=about(0.93)) for split in found]
    assert terms.choose(near).strategy.name == "sound"


def test_without_validation_records_the_holdout_has_to():
    terms = Terms(LIMITS, about(0.92), 0.02)
    lucky, sound = (measured(n, **{**k, "validation": None, "choosing": None}) for n, k in
                    (("lucky", LUCKY), ("sound", SOUND)))  # fmt: skip
    assert terms.choose([sound, lucky]).strategy.name == "lucky"
    with pytest.raises(NoFeasibleCandidate):
        Terms(LIMITS, about(0.99), 0.02).choose([sound, lucky])


def test_a_split_that_is_idle_on_the_records_that_choose_is_the_last_choice():
    split = measured("idle", **SOUND)
    idle = replace(split, stealing=replace(split.stealing, direct_choosing=about(0.94), direct_accuracy=about(0.3)))
    assert idle.loss == float("inf")
    assert split.loss == 1.0
    assert not idle.idle
