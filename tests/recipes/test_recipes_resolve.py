"""From a name or a table to a recipe: presets, settings, and one clear error before anything trains."""

import json

import pytest

from edgeward.core import Candidate
from edgeward.core.errors import ConfigError
from edgeward.recipes import RECIPES, DpSgdTraining, EarlyStop, Gecko, PruneRetrain, QuantizationAware, resolve
from edgeward.train import Schedule


def test_names_presets_and_tables():
    paper, crossfit = resolve("gecko:paper"), resolve("gecko:crossfit")
    assert (paper.name, crossfit.name) == ("gecko:paper", "gecko:crossfit")
    assert paper.excluded == 0
    assert crossfit.excluded >= 1
    assert resolve("gecko") == crossfit
    assert resolve({"name": "gecko:paper", "alpha": 0.3}).alpha == 0.3
    assert resolve({"name": "gecko", "preset": "paper"}) == paper
    assert resolve(paper) is paper
    assert resolve({"name": "prune_retrain", "sparsity": 0}).sparsity == 0


@pytest.mark.parametrize("slug", sorted(RECIPES))
def test_the_defaults_are_those_of_the_named_preset(slug):
    recipe = resolve(slug)
    preset = getattr(recipe, "preset", None)
    assert recipe.name == (f"{slug}:{preset}" if preset else slug)
    if preset:
        assert recipe == resolve(f"{slug}:{preset}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("geko", ["unknown recipe 'geko'", "did you mean 'gecko'"]),
        ("gecko:papr", ["unknown preset of gecko 'papr'", "did you mean 'paper'"]),
        ("none:paper", ["none has no presets"]),
        ({"name": "prune_retrain", "sparsty": 0.5}, ["unknown setting of prune_retrain", "did you mean 'sparsity'"]),
        ({"sparsity": 0.5}, ["needs a name"]),
        ({"name": "gecko", "preset": "papr"}, ["did you mean 'paper'"]),
        ({"name": "gecko:paper", "teachers": "ten", "alpha": True}, ["teachers = 'ten'", "alpha = True"]),
        ({"name": "gecko", "teachers": 2.5}, ["teachers = 2.5: expected a whole number"]),
        ({"name": "prune_retrain", "sparsity": float("nan")}, ["a finite number"]),
        ({"name": "prune_retrain", "sparsity": 1.0}, ["sparsity from 0 to below 1"]),
        ({"name": "early_stop", "patience": 0}, ["patience at least 1"]),
        ({"name": "qat", "weight_bits": 1}, ["2"]),
        ({"name": "int8", "calibration": 0}, ["calibration at least 1"]),
        ({"name": "dp_sgd", "noise": -1}, ["noise, at least 0"]),
        ({"name": "dp_sgd", "epochs": 0}, ["epochs, at least 1"]),
        ({"name": "none", "schedule": {"epochs": 0}}, ["epochs, at least 1"]),
        ({"name": "none", "schedule": {"epoch": 5}}, ["epoch"]),
        ({"name": "none", "schedule": 5}, ["a table of a schedule"]),
        ({"name": "gecko:paper", "excluded": 1, "teachers": 3}, ["excluded 0 in preset paper"]),
        ({"name": "gecko:crossfit", "excluded": 0}, ["excluded at least 1 in preset crossfit"]),
    ],
)
def test_bad_specs_are_one_config_error(spec, words):
    with pytest.raises(ConfigError) as caught:
        resolve(spec)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 1


def test_a_presets_name_on_other_settings_is_refused():
    """`Gecko(preset="paper")` would have reported cross-fitted numbers under the paper's name."""
    with pytest.raises(ConfigError, match="preset paper"):
        Gecko(preset="paper")
    with pytest.raises(ConfigError, match="preset paper or crossfit"):
        Gecko(preset="mine")


def test_schedules_in_tables():
    made = resolve({"name": "gecko", "schedule": {"epochs": 3}, "teacher_schedule": {"epochs": 2, "rate": 0.1}})
    assert made.schedule == Schedule(epochs=3)
    assert made.teacher_schedule == Schedule(epochs=2, rate=0.1)
    json.dumps(made.settings(), allow_nan=False)


CHANGES = [
    (EarlyStop(), {"patience": 6}),
    (PruneRetrain(), {"sparsity": 0.71}),
    (PruneRetrain(), {"schedule": Schedule(epochs=3)}),
    (QuantizationAware(), {"weight_bits": 3}),
    (DpSgdTraining(), {"noise": 1.1}),
    (DpSgdTraining(), {"delta": 1e-6}),
    (Gecko(), {"alpha": 0.01}),
    (Gecko(), {"teacher_schedule": Schedule(rate=0.5)}),
]


@pytest.mark.parametrize(("recipe", "change"), CHANGES)
def test_every_setting_changes_the_candidates_hash(recipe, change):
    changed = type(recipe)(**{**{f: getattr(recipe, f) for f in recipe.settings()}, **change})
    digests = {Candidate(r.name, r.settings()).digest for r in (recipe, changed)}
    assert len(digests) == 2
